// What a node is made of.
#pragma once

#include <vector>

#include "compiler/ir/module.h"

namespace vicinal::ir {

// The node and all that it is made of, by number, up to its own.
std::vector<bool> reachable(const Module& module, NodeId root);

}  // namespace vicinal::ir
