// What a variant reads beside its tensors: params, axes and captured inputs.
#pragma once

#include "runtime/binding/problem.h"

namespace vicinal::runtime {

// Fills params, axes, inputs and extents of a problem whose tensors and grid are bound, and checks them. The
// extents that inputs declare are solved for from their shapes.
Result<void> bind_values(const BindingRules& rules, const RunArguments& arguments, Problem& p);

}  // namespace vicinal::runtime
