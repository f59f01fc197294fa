#include "compiler/analysis/index_bounds.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "compiler/ir/text.h"
#include "compiler/support/match.h"

namespace vicinal::analysis {
namespace {

using ir::NodeId;
using ir::Op;
using ir::Symbol;
using ir::SymbolKind;

// floor(value / divisor). Tight: some element of a large enough problem reaches it, so that a launch may be
// refused for it; a loose one, such as that of min(k, 7), can only prove.
struct Bound {
  Linear value;
  std::int64_t divisor = 1;
  bool tight = true;
};

// What an int node can be: every bound of a list holds, and none is known where it is empty.
struct Bounds {
  std::vector<Bound> low, high;
  // They hold while these stay at least 0 (no operation wraps), for this node and for the operands of the
  // mask.
  std::vector<Linear> no_wrap = {};
  std::uint8_t relies_on = 0;
};
using List = std::vector<Bound>;

constexpr std::size_t kMaxBounds = 4;
constexpr std::int64_t kIntMax = std::numeric_limits<std::int32_t>::max(),
                       kIntMin = std::numeric_limits<std::int32_t>::min();

Bounds exactly(const Linear& l) {
  return {{{l}}, {{l}}};
}
Bounds below(const Linear& count) {
  return {{{Linear(0)}}, {{count - Linear(1)}}};
}

List loose(List list) {
  for (Bound& b : list) b.tight = false;
  return list;
}
List both(List a, const List& b) {
  a.insert(a.end(), b.begin(), b.end());
  if (a.size() > kMaxBounds) a.resize(kMaxBounds);
  return loose(std::move(a));
}

// -floor(x / d) = floor((d - 1 - x) / d)
List negate(List list) {
  for (Bound& b : list) b.value = Linear(b.divisor - 1) - b.value;
  return list;
}

List add(const List& a, const List& b) {
  List sums;
  for (const Bound& x : a)
    for (const Bound& y : b) {
      if ((x.divisor != 1 && y.divisor != 1) || sums.size() == kMaxBounds) continue;
      const auto left = x.value.times(y.divisor), right = y.value.times(x.divisor);
      if (left && right) sums.push_back({*left + *right, x.divisor * y.divisor, x.tight && y.tight});
    }
  return sums;
}

List times(const List& list, std::int64_t factor) {
  List products;
  for (const Bound& b : list)
    if (const auto product = b.value.times(factor); product && b.divisor == 1)
      products.push_back({*product, 1, b.tight});
  return products;
}

List over(List list, std::int64_t divisor) {
  constexpr std::int64_t limit = std::int64_t{1} << 31;
  std::erase_if(list, [&](const Bound& b) { return b.divisor * divisor >= limit; });
  for (Bound& b : list) b.divisor *= divisor;
  return list;
}

// An end outside of both: sign 1 for lower bounds, -1 for upper ones. Each list's is one, moved by how far
// the other's can stand beyond it.
List outer(const List& a, const List& b, int sign) {
  List result;
  for (const Bound& x : a)
    for (const Bound& y : b) {
      if (x.divisor != y.divisor) continue;
      for (const auto& [from, other] : {std::pair(x, y), std::pair(y, x)}) {
        const std::int64_t beyond = (sign > 0 ? other.value - from.value : from.value - other.value).least();
        if (beyond > kIntMin)
          result.push_back(
              {from.value + Linear(sign * std::min<std::int64_t>(beyond, 0)), from.divisor, false});
      }
    }
  if (result.size() > kMaxBounds) result.resize(kMaxBounds);
  return result;
}

bool at_least(const Bounds& x, std::int64_t least) {
  return std::ranges::any_of(
      x.low, [&](const Bound& b) { return (b.value - Linear(least * b.divisor)).never_negative(); });
}

std::optional<std::int64_t> constant(const Bounds& x) {
  if (x.low.size() != 1 || x.high.size() != 1 || x.low[0].divisor != 1) return std::nullopt;
  return x.low[0].value == x.high[0].value ? x.low[0].value.constant() : std::nullopt;
}

class Analysis {
 public:
  Analysis(const ir::Module& module, bool context_key) : module_(module), context_key_(context_key) {}

  IndexBounds run() {
    result_.clamp.resize(module_.size());
    collected_.resize(module_.size());
    for (std::uint32_t n = 0; n < module_.size(); ++n) {
      const ir::Node& node = module_.nodes()[n];
      bounds_.push_back(node.type == ir::Type::integer ? bound(node) : Bounds{});
      if (const auto* load = std::get_if<ir::Load>(&node.what))
        indices(NodeId{n}, 0, node.operands.size(), load->input);
      if (const auto* dot = std::get_if<ir::Dot>(&node.what)) {
        indices(NodeId{n}, 0, dot->first_indices, dot->first);
        indices(NodeId{n}, dot->first_indices, node.operands.size(), dot->second);
        same_length(*dot);
      }
    }
    for (auto& [terms, check] : checks_) result_.checks.push_back(std::move(check));
    return std::move(result_);
  }

 private:
  // With axes, keys and queries share the grid: one symbol stands for both counts.
  Linear extent(SymbolKind kind, std::uint32_t index = 0) const {
    if (kind == SymbolKind::keys && !module_.axes.empty()) kind = SymbolKind::tokens;
    return Linear::symbol({kind, index});
  }

  Bounds symbol(const Symbol& s) const {
    switch (s.kind) {
      case SymbolKind::b: return below(extent(SymbolKind::batch));
      case SymbolKind::h: return below(extent(SymbolKind::heads));
      case SymbolKind::kv_h: return below(extent(SymbolKind::kv_heads));
      case SymbolKind::q_index: return below(extent(SymbolKind::tokens));
      case SymbolKind::q: {
        const Linear shift =
            module_.align_end ? extent(SymbolKind::keys) - extent(SymbolKind::tokens) : Linear(0);
        return {{{shift}}, {{shift + extent(SymbolKind::tokens) - Linear(1)}}};
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

  Bounds bound(const ir::Node& node) const {
    return support::match(
        node.what, [&](const ir::Constant& c) { return exactly(Linear(ir::value_of(c).i)); },
        [&](const Symbol& s) { return symbol(s); }, [&](const ir::Apply& a) { return apply(a.op, node); },
        [](const ir::Load&) { return Bounds{}; }, [](const ir::Dot&) { return Bounds{}; });
  }

  Bounds apply(Op op, const ir::Node& node) const {
    constexpr std::uint8_t first = 1, second = 2, pair = 3;
    const auto x = [&](std::size_t i) -> const Bounds& { return bounds_[node.operands[i].value]; };
    switch (op) {
      case Op::add_i: return checked({add(x(0).low, x(1).low), add(x(0).high, x(1).high), {}, pair});
      case Op::sub_i:
        return checked({add(x(0).low, negate(x(1).high)), add(x(0).high, negate(x(1).low)), {}, pair});
      case Op::neg_i: return checked({negate(x(0).high), negate(x(0).low), {}, first});
      case Op::mul_i: return multiply(x(0), x(1));
      case Op::min_i: return {outer(x(0).low, x(1).low, 1), both(x(0).high, x(1).high), {}, pair};
      case Op::max_i: return {both(x(0).low, x(1).low), outer(x(0).high, x(1).high, -1), {}, pair};
      case Op::abs_i:
        if (at_least(x(0), 0)) return {x(0).low, x(0).high, {}, first};
        if (!at_least(x(0), -kIntMax)) return {};  // the smallest int is its own absolute value
        return {{{Linear(0)}}, outer(x(0).high, negate(x(0).low), -1), {}, first};
      case Op::sign_i: return {{{Linear(-1), 1, false}}, {{Linear(1), 1, false}}};
      case Op::floordiv_i:
        if (const auto divisor = constant(x(1)); divisor && *divisor > 0)
          return {over(x(0).low, *divisor), over(x(0).high, *divisor), {}, first};
        return at_least(x(0), 0) && at_least(x(1), 1) ? Bounds{{{Linear(0)}}, loose(x(0).high), {}, pair}
                                                      : Bounds{};
      case Op::shr_i:
        if (const auto count = constant(x(1)); count && *count >= 0 && *count < 31)
          return {over(x(0).low, std::int64_t{1} << *count),
                  over(x(0).high, std::int64_t{1} << *count),
                  {},
                  first};
        return at_least(x(0), 0) ? Bounds{{{Linear(0)}}, loose(x(0).high), {}, first} : Bounds{};
      case Op::floormod_i:
        // x % 0 is 0, so that the remainder is never negative here.
        return at_least(x(1), 1) ? Bounds{{{Linear(0)}}, loose(add(x(1).high, {{Linear(-1)}})), {}, second}
                                 : Bounds{};
      case Op::bitand_i:
        for (std::size_t i : {std::size_t{1}, std::size_t{0}})  // constants stand on the right
          if (at_least(x(i), 0)) return {{{Linear(0)}}, loose(x(i).high), {}, i == 0 ? first : second};
        return {};
      case Op::select_i:
        return {outer(x(1).low, x(2).low, 1), outer(x(1).high, x(2).high, -1), {}, second | 4};
      case Op::int_b: return {{{Linear(0), 1, false}}, {{Linear(1), 1, false}}};
      default: return {};
    }
  }

  static Bounds multiply(const Bounds& a, const Bounds& b) {
    for (const auto& [scaled, factor] : {std::pair(&a, &b), std::pair(&b, &a)}) {
      const auto c = constant(*factor);
      if (!c) continue;
      const bool up = *c >= 0;
      return checked(
          {times(up ? scaled->low : scaled->high, *c), times(up ? scaled->high : scaled->low, *c), {}, 3});
    }
    return {};
  }

  // Bounds hold unless the operation wraps, which has to be ruled out: one of each end's bounds does that.
  static Bounds checked(Bounds bounds) {
    const auto fits = [&](const List& list, bool low) {
      std::optional<Linear> needed;
      for (const Bound& b : list) {
        const Linear room =
            low ? b.value - Linear(kIntMin * b.divisor) : Linear((kIntMax + 1) * b.divisor - 1) - b.value;
        if (room.never_negative()) return true;
        if (!needed && !room.constant()) needed = room;
      }
      if (needed) bounds.no_wrap.push_back(*needed);
      return needed.has_value();
    };
    // An operation of which one end is not known may wrap to anywhere.
    if (!fits(bounds.low, true) || !fits(bounds.high, false)) return {};
    return bounds;
  }

  void require(const Linear& difference, std::string message, bool equality = false) {
    if (!equality && difference.never_negative()) return;
    // Of checks that differ in a constant only the strictest says something.
    const auto [known, is_new] =
        checks_.try_emplace({equality ? difference : difference.without_constant(), equality},
                            LaunchCheck{difference, equality, message});
    if (!is_new && !equality && !(difference - known->second.difference).never_negative())
      known->second = {difference, equality, std::move(message)};
  }

  // What the bounds of an index rely on, once for each node.
  void require_no_wrap(NodeId id) {
    std::vector<NodeId> open = {id};
    while (!open.empty()) {
      const NodeId node = open.back();
      open.pop_back();
      if (collected_[node.value]) continue;
      collected_[node.value] = true;
      const Bounds& bounds = bounds_[node.value];
      for (const Linear& room : bounds.no_wrap)
        require(room, "index arithmetic leaves 32 bits at these extents");
      for (std::size_t i = 0; i < module_[node].operands.size() && i < 8; ++i)
        if ((bounds.relies_on >> i & 1) != 0) open.push_back(module_[node].operands[i]);
    }
  }

  void indices(NodeId id, std::size_t first, std::size_t last, std::uint32_t input) {
    for (std::size_t i = first; i < last; ++i) index(id, i, input, i - first);
  }

  // At least 0 exactly when floor(high / d) < floor(extent / e), or, where both divide by the same, only if
  // it is.
  static std::optional<Linear> room(const Bound& extent, const Bound& high) {
    if (extent.divisor == high.divisor) return extent.value - high.value - Linear(high.divisor);
    if (extent.divisor == 1) {
      const auto e = extent.value.times(high.divisor);
      return e ? std::optional(*e - high.value - Linear(1)) : std::nullopt;
    }
    const auto h = high.divisor == 1 ? (high.value + Linear(1)).times(extent.divisor) : std::nullopt;
    return h ? std::optional(extent.value - *h) : std::nullopt;
  }

  // Something that must be at least 0: proved, left to a launch check, or neither.
  struct Need {
    bool proved = false;
    std::optional<Linear> check;
    void add(const Linear& difference, bool may_check) {
      if (difference.never_negative())
        proved = true;
      else if (may_check && !difference.constant() && !check)
        check = difference;
    }
  };

  void index(NodeId id, std::size_t operand, std::uint32_t input, std::size_t dimension) {
    const NodeId node = module_[id].operands[operand];
    const Bounds& index = bounds_[node.value];
    const Bounds& extent = bounds_[module_.inputs[input].dims[dimension].value];
    Need below_end, from_start;
    bool never = false;
    for (const Bound& b : index.low) {
      from_start.add(b.value, b.tight);
      for (const Bound& e : extent.high)  // always past the last element?
        if (const auto end = e.divisor == 1 ? e.value.times(b.divisor) : std::nullopt)
          never = never || (b.value - *end).never_negative();
    }
    for (const Bound& b : index.high) {
      never = never || (Linear(-1) - b.value).never_negative();
      for (const Bound& e : extent.low)
        if (const auto r = room(e, b)) below_end.add(*r, b.tight && (b.divisor == 1 || e.divisor == 1));
    }
    if (never) result_.never.push_back({id, operand, input});
    if (never || !(from_start.proved || from_start.check) || !(below_end.proved || below_end.check)) {
      result_.clamp[id.value] = static_cast<std::uint8_t>(result_.clamp[id.value] | 1 << operand);
      result_.clamped.push_back({id, operand, input});
      return;
    }
    require_no_wrap(node);
    for (const Need* need : {&from_start, &below_end})
      if (!need->proved)
        require(*need->check,
                fmt::format("an index of `{}` leaves dimension {}: `{} >= 0` must hold",
                            module_.inputs[input].name, dimension, need->check->print(module_)));
  }

  void same_length(const ir::Dot& dot) {
    const ir::Input& first = module_.inputs[dot.first];
    const ir::Input& second = module_.inputs[dot.second];
    const List& a = bounds_[first.dims.back().value].low;
    const List& b = bounds_[second.dims.back().value].low;
    if (a.empty() || b.empty() || a[0].divisor != 1 || b[0].divisor != 1 || a[0].value == b[0].value) return;
    require(a[0].value - b[0].value,
            fmt::format("the last dimensions of `{}` and `{}` must be equal", first.name, second.name), true);
  }

  const ir::Module& module_;
  bool context_key_;
  std::vector<Bounds> bounds_;
  std::vector<bool> collected_;  // by node: require_no_wrap has been here
  std::map<std::pair<Linear, bool>, LaunchCheck> checks_;
  IndexBounds result_;
};

}  // namespace

IndexBounds bound_indices(const ir::Module& module, bool context_key) {
  return Analysis(module, context_key).run();
}

}  // namespace vicinal::analysis
