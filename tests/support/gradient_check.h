// Gradients of the interpreter against central finite differences of its forward pass, all in double.
#pragma once

#include <map>
#include <optional>
#include <random>
#include <string>

#include "runtime/cpu/interpreter.h"
#include "tests/support/plain_attention.h"

namespace vicinal::testing {

// What backward() is given and gives. Tensors are f64 in C order.
struct GradientCase {
  Problem problem;
  HostTensor d_out, d_lse;  // d_lse is of rank 0 where the variant has none
  HostTensor q, k, v, context_k, context_v;
  std::map<std::string, HostTensor> inputs, params;  // of all that is learnable

  OutputDifferentials given() const;
  Differentials wanted() const;
};

// Compiles for doubles on the interpreter; captured floats are f64 too.
Result<Kernel> compile_for_gradients(const Spec& spec, CompileOptions options = {});

// A problem with random incoming gradients, learnable params moved off their defaults by a little, and room
// for every gradient. Nothing when none was found whose values stay away from kinks.
std::optional<GradientCase> gradient_case(const Kernel& kernel, std::mt19937& random, std::int64_t tokens,
                                          int attempts);
GradientCase gradient_case(const Kernel& kernel, Problem problem, std::mt19937& random);

// Whether every kept pair and every row stays so far from places without a derivative.
bool keeps_from_kinks(const Kernel& kernel, const Problem& problem, double margin);

struct GradientErrors {
  std::int64_t compared = 0;
  double worst = 0;  // the largest error, relative to the largest gradient of its tensor
  std::string where;
};
// Runs backward() and compares; of a tensor at most `most` elements, evenly spread.
GradientErrors compare_gradients(const Kernel& kernel, GradientCase& c, std::int64_t most);

// sum(d_out * out) + sum(d_lse * lse) for each row.
std::vector<double> row_losses(const Kernel& kernel, const GradientCase& c);

inline constexpr double kGradientTolerance = 1e-6;

}  // namespace vicinal::testing
