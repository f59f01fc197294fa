// What printers of expressions share: which values get a name, and the order of things. What a node becomes
// is theirs to say.
#pragma once

#include <array>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "compiler/ir/module.h"

namespace vicinal::emit {

// How the emitted code names what is not an expression.
struct Names {
  // Member of Parameters for a param, a named extent or an input; by their numbers in the module.
  std::vector<std::string> params, extents, inputs;
  int head_dim = 0;
};

class Printer {
 public:
  explicit Printer(const ir::Module& module) : module_(module), text_(module.size()), depth_(module.size()) {}
  virtual ~Printer() = default;

  // What has a name already: it is not printed again, nor what it was made of.
  void know(ir::NodeId node, std::string name) { known_.emplace(node.value, std::move(name)); }

  // A value and the statement it ends up in, such as "return " or "row.r0 = ".
  struct Result {
    ir::NodeId node;
    std::string statement;
  };
  // Declarations of what is used twice, then the statements.
  std::string body(std::span<const Result> results, int indent);
  std::string body(ir::NodeId root, int indent) { return body(std::array{Result{root, "return "}}, indent); }
  // One expression.
  std::string inline_text(ir::NodeId root);

 protected:
  // The node as an expression over text() of its operands.
  virtual std::string print(std::uint32_t n) = 0;
  virtual std::string_view type_name(ir::Type type) const = 0;

  const ir::Module& module() const { return module_; }
  const ir::Node& node(std::uint32_t n) const { return module_.nodes()[n]; }
  const std::string& text(ir::NodeId id) const { return text_[id.value]; }

 private:
  void print_node(std::uint32_t n);

  const ir::Module& module_;
  std::vector<std::string> text_;
  std::vector<int> depth_;
  std::map<std::uint32_t, std::string> known_;
};

// A constant as a C++ literal.
std::string literal(const ir::Constant& c);
std::string literal(float x);

// What the query `q`, the key `k` or the arguments `a` call a symbol.
std::string symbol_text(const ir::Module& module, const Names& names, const ir::Symbol& s);

// Without the parentheses that enclose all of it.
std::string unwrapped(const std::string& text);

}  // namespace vicinal::emit
