// vicinal explain gradient SPEC: the derivatives, where the gradients of captured tensors go, and how a
// device adds them up.
#pragma once

#include "cli/problem.h"

namespace vicinal::cli {

// Where a shape is given, also what memory the sums take.
Result<int> explain_gradient(const Spec& spec, const ProblemOptions& problem, bool json);

}  // namespace vicinal::cli
