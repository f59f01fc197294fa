// Evaluation of nodes on the host.
#pragma once

#include <functional>
#include <optional>

#include "compiler/ir/module.h"

namespace vicinal::ir {

// The value of a node that reads nothing but constants and what `lookup` knows; nothing for any other. Exact
// mode.
using SymbolLookup = std::function<std::optional<Value>(const Symbol&)>;
std::optional<Value> evaluate(const Module& module, NodeId node, const SymbolLookup& lookup);

}  // namespace vicinal::ir
