// Prints expressions of the IR as CUDA. Expressions only: every loop and barrier is in templates/.
#pragma once

#include <string>

#include "compiler/analysis/index_bounds.h"
#include "compiler/emit/cuda/printer.h"

namespace vicinal::emit {

// "int", "float" or "bool".
std::string_view cuda_type(ir::Type type);

// The body of a function that returns the node: declarations of what is used twice, then the return.
// `exact`: as in masks. Every line is indented by `indent` spaces.
std::string function_body(const ir::Module& module, ir::NodeId node, const analysis::IndexBounds& bounds,
                          const Names& names, bool exact, int indent);

// The same with several results, and with names for what is known already.
struct KnownValue {
  ir::NodeId node;
  std::string name;
};
std::string function_body(const ir::Module& module, std::span<const Printer::Result> results,
                          std::span<const KnownValue> known, const analysis::IndexBounds& bounds,
                          const Names& names, bool exact, int indent);

// What a load or a dot() reads of a tensor: the number of the element in C order, of a dot() that of the
// row's first channel; or the offset in memory where a dot()'s row begins.
struct TensorRead {
  ir::NodeId node;
  bool second = false;  // of a dot()'s tensors
  bool offset = false;
};
// The statement with that in place of the node's value.
std::string read_body(const ir::Module& module, const TensorRead& read, const analysis::IndexBounds& bounds,
                      const Names& names, const std::string& statement, int indent);

// The node alone, for constants and small expressions over dynamic params.
std::string inline_expression(const ir::Module& module, ir::NodeId node, const Names& names);

}  // namespace vicinal::emit
