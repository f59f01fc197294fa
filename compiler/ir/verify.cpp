#include "compiler/ir/verify.h"

#include <fmt/format.h>

#include "compiler/support/match.h"

namespace vicinal::ir {
namespace {

class Verifier {
 public:
  explicit Verifier(const Module& module) : module_(module) {}

  std::optional<std::string> run() {
    for (std::uint32_t n = 0; n < module_.size() && why_.empty(); ++n) node(n);
    if (why_.empty()) uses();
    return why_.empty() ? std::nullopt : std::optional(why_);
  }

 private:
  void require(bool holds, std::uint32_t n, std::string_view what) {
    if (!holds && why_.empty()) why_ = fmt::format("node %{}: {}", n, what);
  }
  Type type(NodeId id) const { return module_[id].type; }
  bool ints(std::span<const NodeId> ids) const {
    for (NodeId id : ids)
      if (type(id) != Type::integer) return false;
    return true;
  }

  void node(std::uint32_t n) {
    const Node& node = module_.nodes()[n];
    const std::span<const NodeId> operands(node.operands.begin(), node.operands.size());
    for (NodeId id : operands) require(id.value < n, n, "an operand does not stand before it");
    if (!why_.empty()) return;
    support::match(
        node.what,
        [&](const Constant& c) {
          require(node.type == c.type && operands.empty(), n, "a constant of another type");
        },
        [&](const Symbol& s) { symbol(n, s); },
        [&](const Apply& a) {
          const OpInfo& op = info(a.op);
          require(static_cast<int>(operands.size()) == op.arity && node.type == op.result, n,
                  "arity or result");
          for (std::size_t i = 0; i < operands.size() && why_.empty(); ++i)
            require(type(operands[i]) == op.operands[i], n, "an operand's type");
        },
        [&](const Load& l) {
          require(l.input < module_.inputs.size(), n, "no such input");
          if (!why_.empty()) return;
          const Input& input = module_.inputs[l.input];
          require(operands.size() == input.dims.size() && node.type == input.type && ints(operands), n,
                  "the indices of a load");
        },
        [&](const Dot& d) {
          require(d.first < module_.inputs.size() && d.second < module_.inputs.size(), n, "no such input");
          if (!why_.empty()) return;
          const std::size_t first = module_.inputs[d.first].dims.size(),
                            second = module_.inputs[d.second].dims.size();
          require(first == d.first_indices + 1 && second + first == operands.size() + 2 && ints(operands), n,
                  "the indices of a dot");
        });
  }

  void symbol(std::uint32_t n, const Symbol& s) {
    const auto below = [&](std::size_t size) { require(s.index < size, n, "a symbol's index"); };
    switch (s.kind) {
      case SymbolKind::q_axis:
      case SymbolKind::k_axis:
      case SymbolKind::axis_length: return below(module_.axes.size());
      case SymbolKind::named_extent: return below(module_.extents.size());
      case SymbolKind::param:
        below(module_.params.size());
        if (why_.empty())
          require(module_.nodes()[n].type == module_.params[s.index].type, n, "a param's type");
        return;
      case SymbolKind::argument: return require(false, n, "a placeholder outside its function");
      default: return require(s.index == 0, n, "a symbol's index");
    }
  }

  void uses() {
    Module& mutable_uses =
        const_cast<Module&>(module_);  // for_each_use hands out references; none is written
    mutable_uses.for_each_use([&](NodeId& id) {
      if (id.value >= module_.size() && why_.empty()) why_ = "a use of a node that is not there";
    });
    if (!why_.empty()) return;
    for (int r = 0; r < kRootCount; ++r) {
      if (!module_.roots[r].valid()) continue;
      const Type wanted = static_cast<Root>(r) == Root::mask ? Type::boolean : Type::real;
      if (type(module_.roots[r]) != wanted)
        why_ = fmt::format("{} is not {}", name_of(static_cast<Root>(r)), name_of(wanted));
    }
    for (const Partial& p : module_.partials)
      if (type(p.value) != Type::real || type(p.leaf) != Type::real || !is_leaf(module_[p.leaf]))
        why_ = fmt::format("a partial of {} is no derivative", name_of(p.of));
  }

  static bool is_leaf(const Node& node) { return !std::holds_alternative<Apply>(node.what); }

  const Module& module_;
  std::string why_;
};

}  // namespace

std::optional<std::string> verify(const Module& module) {
  return Verifier(module).run();
}

}  // namespace vicinal::ir
