// Nodes in the language's own syntax, for people; parsed and checked, it gives the same nodes again.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "compiler/ir/module.h"

namespace vicinal::ir {

struct LanguageText {
  std::vector<std::string> lets;  // "let v1 = tanh(score / cap)", in order; what is used more than once
  std::vector<std::string> expressions;  // one for each root, over the lets
};
LanguageText write_language(const Module& module, std::span<const NodeId> roots);

}  // namespace vicinal::ir
