// Gradients of a run: read from .npy files, computed, and written to others.
#pragma once

#include <CLI/CLI.hpp>

#include <functional>
#include <string>
#include <vector>

#include "cli/problem.h"

namespace vicinal::cli {

struct GradientOptions {
  std::string out, lse;                       // of what the run computes
  std::string q, k, v, context_k, context_v;  // where to write
  std::vector<std::string> captured;          // NAME=FILE
  bool nondeterministic = false;

  bool wanted() const;
};
void add_gradient_options(CLI::App& app, GradientOptions& options);

// What can be found wrong before any work is done: files that cannot be written, names that the spec does not
// have, a missing gradient of the output.
Result<void> check_gradient_options(const Spec& spec, const GradientOptions& options);

// Computes gradients of tensors in host memory; returns how many milliseconds it took.
using ComputeGradients =
    std::function<Result<double>(const OutputDifferentials& given, const Differentials& wanted)>;
// Computes and writes what is wanted. `dtype`: of the gradients of out, q, k, v and context.
Result<double> write_gradients(const Spec& spec, HostProblem& problem, const GradientOptions& options,
                               DType dtype, const ComputeGradients& compute);

}  // namespace vicinal::cli
