#include "compiler/emit/cuda/expression.h"

#include <fmt/args.h>
#include <fmt/format.h>

#include "compiler/support/match.h"

namespace vicinal::emit {
namespace {

using ir::NodeId;
using ir::Type;

class ValuePrinter final : public Printer {
 public:
  ValuePrinter(const ir::Module& module, const analysis::IndexBounds* bounds, const Names& names, bool exact)
      : Printer(module), bounds_(bounds), names_(names), exact_(exact) {}

  // Of this load or dot() what is read is printed, not its value.
  void print_read(const TensorRead& read) { read_ = read; }

 private:
  std::string_view type_name(Type type) const override { return cuda_type(type); }

  std::string print(std::uint32_t n) override {
    const ir::Node& node = this->node(n);
    return support::match(
        node.what, [](const ir::Constant& c) { return literal(c); },
        [&](const ir::Symbol& s) { return symbol_text(module(), names_, s); },
        [&](const ir::Apply& a) { return apply(a.op, node); },
        [&](const ir::Load& l) { return load(n, node, l); },
        [&](const ir::Dot& d) { return dot(n, node, d); });
  }

  std::string apply(ir::Op op, const ir::Node& node) const {
    const ir::OpInfo& info = ir::info(op);
    fmt::dynamic_format_arg_store<fmt::format_context> operands;
    for (NodeId id : node.operands) operands.push_back(text(id));
    return fmt::vformat(exact_ ? info.exact_cuda : info.cuda, operands);
  }

  // ", i, j" for the operands from first to last, clamped where they have to be.
  std::string indices(std::uint32_t n, const ir::Node& node, std::size_t first, std::size_t last,
                      const std::string& input) const {
    std::string out;
    for (std::size_t i = first; i < last; ++i) {
      const std::string index = unwrapped(text(node.operands[i]));
      const bool clamp = bounds_ != nullptr && (bounds_->clamp[n] >> i & 1) != 0;
      out += clamp ? fmt::format(", vicinal::clamp_index({}, {}.extent[{}])", index, input, i - first)
                   : ", " + index;
    }
    return out;
  }

  std::string load(std::uint32_t n, const ir::Node& node, const ir::Load& l) const {
    const std::string input = "a." + names_.inputs[l.input];
    const std::string function =
        NodeId{n} == read_.node ? "element" : fmt::format("load_{}", cuda_type(node.type));
    return fmt::format("vicinal::{}({}{})", function, input,
                       indices(n, node, 0, node.operands.size(), input));
  }

  std::string dot(std::uint32_t n, const ir::Node& node, const ir::Dot& d) const {
    const std::string x = "a." + names_.inputs[d.first], y = "a." + names_.inputs[d.second];
    const std::string of_x = indices(n, node, 0, d.first_indices, x),
                      of_y = indices(n, node, d.first_indices, node.operands.size(), y);
    if (NodeId{n} != read_.node)
      return fmt::format("vicinal::dot({0}, vicinal::offset({0}, 0{1}), {2}, vicinal::offset({2}, 0{3}))", x,
                         of_x, y, of_y);
    const std::string &input = read_.second ? y : x, &at = read_.second ? of_y : of_x;
    if (read_.offset) return fmt::format("vicinal::offset({}, 0{})", input, at);
    const std::size_t rank = module().inputs[read_.second ? d.second : d.first].dims.size();
    return fmt::format("vicinal::element({0}{1}) * {0}.extent[{2}]", input, at, rank - 1);
  }

  const analysis::IndexBounds* bounds_;
  const Names& names_;
  bool exact_;
  TensorRead read_ = {};
};

}  // namespace

std::string_view cuda_type(Type t) {
  return t == Type::integer ? "int" : t == Type::real ? "float" : "bool";
}

std::string function_body(const ir::Module& module, NodeId node, const analysis::IndexBounds& bounds,
                          const Names& names, bool exact, int indent) {
  return ValuePrinter(module, &bounds, names, exact).body(node, indent);
}

std::string function_body(const ir::Module& module, std::span<const Printer::Result> results,
                          std::span<const KnownValue> known, const analysis::IndexBounds& bounds,
                          const Names& names, bool exact, int indent) {
  ValuePrinter printer(module, &bounds, names, exact);
  for (const KnownValue& value : known) printer.know(value.node, value.name);
  return printer.body(results, indent);
}

std::string read_body(const ir::Module& module, const TensorRead& read, const analysis::IndexBounds& bounds,
                      const Names& names, const std::string& statement, int indent) {
  ValuePrinter printer(module, &bounds, names, false);
  printer.print_read(read);
  return printer.body(std::array{Printer::Result{read.node, statement}}, indent);
}

std::string inline_expression(const ir::Module& module, NodeId node, const Names& names) {
  return ValuePrinter(module, nullptr, names, true).inline_text(node);
}

}  // namespace vicinal::emit
