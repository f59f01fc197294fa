// The IR as text: printed a node a line, and read back to the same module.
#pragma once

#include <vicinal/result.h>

#include "compiler/ir/module.h"

namespace vicinal::ir {

std::string print(const Module& module);

// The module that was printed. Errors (usage) name the line.
Result<Module> parse(std::string_view text);

// The symbol as print() spells it: "q.t" with the axis' own name, "len t", "extent docs", "param cap".
std::string spell(const Module& module, const Symbol& symbol);

}  // namespace vicinal::ir
