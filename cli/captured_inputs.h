// The inputs that a spec captures: from files, or made up to suit a problem.
#pragma once

#include "cli/problem.h"

namespace vicinal::cli {

// What --input names.
Result<void> capture_inputs(const Spec& spec, const ProblemOptions& options, HostProblem& p);

// Everything that is still missing, with a note on each. Extents that only an input declares are a matter of
// taste: the first that satisfies the launch checks is taken.
Result<void> make_up_inputs(const Spec& spec, const ProblemOptions& options, HostProblem& p);

}  // namespace vicinal::cli
