// The promises of a module: types, order, arity and roots. For our own mistakes, not for users'.
#pragma once

#include <optional>
#include <string>

#include "compiler/ir/module.h"

namespace vicinal::ir {

// What is broken, or nothing.
std::optional<std::string> verify(const Module& module);

}  // namespace vicinal::ir
