// vicinal explain gradient SPEC: the derivatives, and where the gradients of captured tensors go.
#pragma once

#include <vicinal/vicinal.h>

namespace vicinal::cli {

Result<int> explain_gradient(const Spec& spec, bool json);

}  // namespace vicinal::cli
