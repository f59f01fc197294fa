#include "compiler/emit/cuda/set_expression.h"

#include <fmt/args.h>
#include <fmt/format.h>

#include <algorithm>

#include "compiler/support/match.h"

namespace vicinal::emit {
namespace {

using ir::NodeId;
using ir::SymbolKind;

std::string point(std::string_view value) {
  return fmt::format("point({})", value);
}

class SetPrinter final : public Printer {
 public:
  SetPrinter(const ir::Module& module, const Names& names, const std::vector<TableUse>& tables)
      : Printer(module), names_(names), tables_(tables) {}

 private:
  std::string_view type_name(ir::Type type) const override { return set_type(type); }

  std::string print(std::uint32_t n) override {
    const ir::Node& node = this->node(n);
    return support::match(
        node.what, [](const ir::Constant& c) { return point(unwrapped(literal(c))); },
        [&](const ir::Symbol& s) { return symbol(s); }, [&](const ir::Apply& a) { return apply(a.op, node); },
        [&](const ir::Load& l) { return load(node, l.input); },
        // Sums over another dimension are not bounded.
        [](const ir::Dot&) { return std::string("any_real()"); });
  }

  // What a box spreads out is a set already; the rest is one value.
  std::string symbol(const ir::Symbol& s) const {
    const std::string text = symbol_text(module(), names_, s);
    switch (s.kind) {
      case SymbolKind::q:
      case SymbolKind::q_index:
      case SymbolKind::q_axis:
      case SymbolKind::k:
      case SymbolKind::k_axis: return text;
      default: return point(unwrapped(text));
    }
  }

  std::string apply(ir::Op op, const ir::Node& node) const {
    const ir::OpInfo& info = ir::info(op);
    std::string operands;
    for (NodeId id : node.operands) operands += ", " + unwrapped(text(id));
    if (!info.transcendental) {
      std::string rule(info.name);
      std::ranges::replace(rule, '.', '_');
      return fmt::format("{}({})", rule, operands.substr(2));
    }
    const bool two = node.operands.size() == 2;
    const std::string exact(info.exact_cuda);
    return fmt::format("computed([](float x{}) {{ return {}; }}{})", two ? ", float y" : "",
                       fmt::format(fmt::runtime(exact), "x", "y"), operands);
  }

  std::string load(const ir::Node& node, std::uint32_t input) const {
    const auto table = std::ranges::find(tables_, input, &TableUse::input);
    std::string indices;
    for (NodeId id : node.operands) indices += ", " + unwrapped(text(id));
    const std::string tensor = "a." + names_.inputs[input];
    if (table == tables_.end()) return fmt::format("read<{}>({}{})", set_type(node.type), tensor, indices);
    return fmt::format("read<{}, {}>({}, a.parameters.{}{})", table->along, set_type(node.type), tensor,
                       table_name(input), indices);
  }

  const Names& names_;
  const std::vector<TableUse>& tables_;
};

}  // namespace

std::string table_name(std::uint32_t input) {
  return fmt::format("t{}", input);
}

std::string_view set_type(ir::Type type) {
  constexpr std::string_view names[] = {"Range", "RealRange", "Truth"};
  return names[type == ir::Type::integer ? 0 : type == ir::Type::real ? 1 : 2];
}

std::string set_function_body(const ir::Module& module, ir::NodeId root, const Names& names,
                              const std::vector<TableUse>& tables, int indent) {
  return SetPrinter(module, names, tables).body(root, indent);
}

}  // namespace vicinal::emit
