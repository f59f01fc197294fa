// Prints booleans of the IR over boxes of queries and keys: every symbol a set, every operation its rule in
// templates/vicinal/ranges.cuh. The emitted twin of analysis/box_program. The names of vicinal::ranges and
// vicinal::planning are visible where it stands.
#pragma once

#include "compiler/emit/cuda/printer.h"

namespace vicinal::emit {

// What an emitted planner knows of a captured input that is asked about by ranges of indices.
struct TableUse {
  std::uint32_t input;
  int along;  // the dimension that its table's lines run along
};
// The name of a table's argument, by input.
std::string table_name(std::uint32_t input);

// What stands for values of a type: Range, RealRange or Truth.
std::string_view set_type(ir::Type type);

// The body of a function that returns a Truth; every line is indented by `indent` spaces.
std::string set_function_body(const ir::Module& module, ir::NodeId root, const Names& names,
                              const std::vector<TableUse>& tables, int indent);

}  // namespace vicinal::emit
