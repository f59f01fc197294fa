// Results of a device against the interpreter: off by at most twice the error of a plain program in the same
// precision plus two units in the last place; masks exactly.
#pragma once

#include <functional>
#include <limits>
#include <optional>
#include <random>

#include "tests/support/device_problem.h"
#include "tests/support/plain_attention.h"

namespace vicinal::testing {

// A device with a driver, and NVRTC to compile for it: seen by compiling the simplest spec. Says why there is
// none.
std::optional<cuda::Context> context_or_skip();
// Whether it runs the kernels of sm_90a.
bool is_hopper(const cuda::Context& context);

// A spec to be compiled for the device and for the interpreter.
struct Job {
  std::string name;
  Spec spec;
  DType dtype = DType::f32;
  std::string kernel;
  std::int64_t head_dim = 64, value_dim = 64;
  std::optional<Kernel> device = {}, host = {};
  std::string error = {};
};

// NVRTC takes most of the time, so all kernels are compiled first, on all processors. Inputs get random
// element types.
void compile_all(std::vector<Job>& jobs);

// Whether a kernel runs the spec on the device.
bool takes(std::string_view kernel, const cuda::Context& context, const Spec& spec, DType dtype,
           std::int64_t dim = 64);

struct Errors {
  double largest = 0, plain = 0, excess = -std::numeric_limits<double>::infinity(), allowance = 0;
  void add(double got, double want, double by_plain, DType dtype);
  double allowed() const { return 2 * plain + allowance; }
  bool pass() const { return excess <= 2 * plain; }
};

struct ErrorTable {
  std::string text;
  ErrorTable();
  void add(const Job& job, const Errors& out, const Errors& lse);
};

// `others`: makes problems of the same spec, over which the plain program's error is taken too where its
// error over this one says no. Of a few rows some suit it by luck.
using MoreProblems = std::function<std::vector<Problem>()>;
void check_values(const cuda::Context& context, const Job& job, Problem problem, ErrorTable* table,
                  const MoreProblems& others = {});

// NaN in some keys and values: it reaches those who keep them, and nobody else.
void poison(Problem& problem, std::mt19937& random);

// Queries and keys of zeros, values one-hot: an element of the output is a key's weight. Where the
// interpreter says that a key is not kept it must be exactly 0, and where it has a weight that fp32 can hold
// it must not be.
void check_mask(const cuda::Context& context, const Job& job, Problem problem, Tiles tiles);

}  // namespace vicinal::testing
