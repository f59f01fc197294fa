#include "compiler/analysis/index_bounds.h"

#include <fmt/format.h>

#include <limits>

#include "compiler/ir/text.h"
#include "compiler/support/match.h"

namespace vicinal::analysis {
namespace {

using ir::NodeId;
using ir::Op;
using ir::Symbol;
using ir::SymbolKind;

// What an int node can be; a missing side is not known.
struct Bounds {
  std::optional<Linear> low, high;
};

constexpr std::int64_t kIntMax = std::numeric_limits<std::int32_t>::max(), kIntMin = std::numeric_limits<std::int32_t>::min();

class Analysis {
 public:
  Analysis(const ir::Module& module, bool context_key) : module_(module), context_key_(context_key) {}

  IndexBounds run() {
    result_.clamp.resize(module_.size());
    for (std::uint32_t n = 0; n < module_.size(); ++n) {
      const ir::Node& node = module_.nodes()[n];
      bounds_.push_back(node.type == ir::Type::integer ? bound(node) : Bounds{});
      if (const auto* load = std::get_if<ir::Load>(&node.what)) indices(NodeId{n}, 0, node.operands.size(), load->input);
      if (const auto* dot = std::get_if<ir::Dot>(&node.what)) {
        indices(NodeId{n}, 0, dot->first_indices, dot->first);
        indices(NodeId{n}, dot->first_indices, node.operands.size(), dot->second);
        same_length(*dot);
      }
    }
    return std::move(result_);
  }

 private:
  // With axes, keys and queries share the grid: one symbol stands for both counts.
  Linear extent(SymbolKind kind, std::uint32_t index = 0) const {
    if (kind == SymbolKind::keys && !module_.axes.empty()) kind = SymbolKind::tokens;
    return Linear::symbol({kind, index});
  }
  static Bounds exactly(const Linear& l) { return {l, l}; }
  static Bounds below(const Linear& count) { return {Linear(0), count - Linear(1)}; }

  Bounds symbol(const Symbol& s) const {
    switch (s.kind) {
      case SymbolKind::b: return below(extent(SymbolKind::batch));
      case SymbolKind::h: return below(extent(SymbolKind::heads));
      case SymbolKind::kv_h: return below(extent(SymbolKind::kv_heads));
      case SymbolKind::q_index: return below(extent(SymbolKind::tokens));
      case SymbolKind::q: {
        const Linear shift = module_.align_end ? extent(SymbolKind::keys) - extent(SymbolKind::tokens) : Linear(0);
        return {shift, shift + extent(SymbolKind::tokens) - Linear(1)};
      }
      case SymbolKind::k: return below(extent(context_key_ ? SymbolKind::context : SymbolKind::keys));
      case SymbolKind::q_axis:
      case SymbolKind::k_axis: return below(extent(SymbolKind::axis_length, s.index));
      case SymbolKind::param:
        if (!module_.params[s.index].dynamic) return exactly(Linear(module_.params[s.index].value.i));
        [[fallthrough]];
      default: return exactly(extent(s.kind, s.index));
    }
  }

  static std::optional<Linear> add(const std::optional<Linear>& a, const std::optional<Linear>& b) {
    return a && b ? std::optional(*a + *b) : std::nullopt;
  }
  static std::optional<Linear> subtract(const std::optional<Linear>& a, const std::optional<Linear>& b) {
    return a && b ? std::optional(*a - *b) : std::nullopt;
  }
  // The smaller (sign 1) or larger (-1) where that is the same one for all extents.
  static std::optional<Linear> pick(const std::optional<Linear>& a, const std::optional<Linear>& b, int sign) {
    if (!a || !b) return std::nullopt;
    if ((sign > 0 ? *b - *a : *a - *b).never_negative()) return a;
    if ((sign > 0 ? *a - *b : *b - *a).never_negative()) return b;
    return std::nullopt;
  }
  // Of two upper bounds that both hold, one to keep: the smaller where that can be told, else a known one.
  static std::optional<Linear> either(const std::optional<Linear>& a, const std::optional<Linear>& b, int sign) {
    if (!a || !b) return a ? a : b;
    const auto better = pick(a, b, sign);
    return better ? better : b;
  }
  static bool non_negative(const Bounds& x) { return x.low && x.low->never_negative(); }
  static bool positive(const Bounds& x) { return x.low && (*x.low - Linear(1)).never_negative(); }

  Bounds bound(const ir::Node& node) {
    return support::match(
        node.what, [&](const ir::Constant& c) { return exactly(Linear(ir::value_of(c).i)); },
        [&](const Symbol& s) { return symbol(s); }, [&](const ir::Apply& a) { return apply(a.op, node); },
        [](const ir::Load&) { return Bounds{}; }, [](const ir::Dot&) { return Bounds{}; });
  }

  Bounds apply(Op op, const ir::Node& node) {
    const auto x = [&](std::size_t i) -> const Bounds& { return bounds_[node.operands[i].value]; };
    switch (op) {
      case Op::add_i: return no_wrap({add(x(0).low, x(1).low), add(x(0).high, x(1).high)});
      case Op::sub_i: return no_wrap({subtract(x(0).low, x(1).high), subtract(x(0).high, x(1).low)});
      case Op::neg_i: return no_wrap({subtract(Linear(0), x(0).high), subtract(Linear(0), x(0).low)});
      case Op::mul_i: return multiply(x(0), x(1));
      case Op::min_i: return {pick(x(0).low, x(1).low, 1), either(x(0).high, x(1).high, 1)};
      case Op::max_i: return {either(x(0).low, x(1).low, -1), pick(x(0).high, x(1).high, -1)};
      case Op::abs_i:
        if (non_negative(x(0))) return x(0);
        return {Linear(0), pick(x(0).high, subtract(Linear(0), x(0).low), -1)};
      case Op::sign_i: return {Linear(-1), Linear(1)};
      case Op::floordiv_i: return divide(x(0), x(1));
      case Op::shr_i: return non_negative(x(0)) ? Bounds{Linear(0), x(0).high} : Bounds{};
      case Op::floormod_i:
        // x % 0 is 0, so the remainder is never negative here.
        return positive(x(1)) ? Bounds{Linear(0), subtract(x(1).high, Linear(1))} : Bounds{};
      case Op::bitand_i:
        for (std::size_t i = 0; i < 2; ++i)
          if (non_negative(x(i))) return {Linear(0), x(i).high};
        return {};
      case Op::select_i: return {pick(x(1).low, x(2).low, 1), pick(x(1).high, x(2).high, -1)};
      case Op::int_b: return {Linear(0), Linear(1)};
      default: return {};
    }
  }

  Bounds multiply(const Bounds& a, const Bounds& b) {
    for (const auto& [scaled, factor] : {std::pair(&a, &b), std::pair(&b, &a)}) {
      const auto c = factor->low && factor->high && *factor->low == *factor->high ? factor->low->constant() : std::nullopt;
      if (!c || !scaled->low || !scaled->high) continue;
      return no_wrap(*c >= 0 ? Bounds{scaled->low->times(*c), scaled->high->times(*c)}
                             : Bounds{scaled->high->times(*c), scaled->low->times(*c)});
    }
    return {};
  }

  Bounds divide(const Bounds& a, const Bounds& b) {
    if (!non_negative(a) || !positive(b)) return {};
    const auto high = a.high ? a.high->constant() : std::nullopt, divisor = b.low->constant();
    if (high && divisor) return {Linear(0), Linear(*high / *divisor)};
    return {Linear(0), a.high};
  }

  // Bounds that hold unless the operation wraps, which a launch check then rules out.
  Bounds no_wrap(Bounds bounds) {
    if (bounds.low) require(*bounds.low - Linear(kIntMin), "index arithmetic leaves 32 bits at these extents");
    if (bounds.high) require(Linear(kIntMax) - *bounds.high, "index arithmetic leaves 32 bits at these extents");
    return bounds;
  }

  void require(const Linear& difference, std::string message, bool equality = false) {
    if (!equality && difference.never_negative()) return;
    for (const LaunchCheck& known : result_.checks)
      if (known.difference == difference && known.equality == equality) return;
    result_.checks.push_back({difference, equality, std::move(message)});
  }

  void indices(NodeId id, std::size_t first, std::size_t last, std::uint32_t input) {
    for (std::size_t i = first; i < last; ++i) index(id, i, input, module_.inputs[input].dims[i - first]);
  }

  void index(NodeId id, std::size_t operand, std::uint32_t input, NodeId dim) {
    const Bounds& index = bounds_[module_[id].operands[operand].value];
    const Bounds& extent = bounds_[dim.value];
    const auto room = subtract(subtract(extent.low, Linear(1)), index.high);
    // Always below the first or past the last element.
    const bool negative = index.high && (Linear(-1) - *index.high).never_negative();
    const bool past = index.low && extent.high && (*index.low - *extent.high).never_negative();
    if (negative || past) result_.never.push_back({id, operand, input});
    if (!index.low || !room) {
      result_.clamp[id.value] = static_cast<std::uint8_t>(result_.clamp[id.value] | 1 << operand);
      result_.clamped.push_back({id, operand, input});
      return;
    }
    const std::string& name = module_.inputs[input].name;
    const auto message = [&](const Linear& needed) {
      return fmt::format("an index of `{}` leaves dimension {}: `{} >= 0` must hold", name, operand, needed.print(module_));
    };
    require(*index.low, message(*index.low));
    require(*room, message(*room));
  }

  void same_length(const ir::Dot& dot) {
    const Bounds& a = bounds_[module_.inputs[dot.first].dims.back().value];
    const Bounds& b = bounds_[module_.inputs[dot.second].dims.back().value];
    if (!a.low || !b.low || *a.low == *b.low) return;
    require(*a.low - *b.low, fmt::format("the last dimensions of `{}` and `{}` must be equal", module_.inputs[dot.first].name, module_.inputs[dot.second].name), true);
  }

  const ir::Module& module_;
  bool context_key_;
  std::vector<Bounds> bounds_;
  IndexBounds result_;
};

}  // namespace

IndexBounds bound_indices(const ir::Module& module, bool context_key) { return Analysis(module, context_key).run(); }

}  // namespace vicinal::analysis
