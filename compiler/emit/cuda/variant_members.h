// What every kernel asks of a variant, as members of the emitted struct: its properties, and its expressions.
#pragma once

#include "compiler/emit/cuda/declarations.h"

namespace vicinal::emit {

// `arguments`: the type that the kernel is launched with.
std::string variant_members(const Specialized& variant, const Declarations& declarations,
                            std::string_view arguments, int head_dim);

}  // namespace vicinal::emit
