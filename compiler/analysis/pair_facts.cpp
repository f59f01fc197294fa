#include "compiler/analysis/pair_facts.h"

#include <limits>

#include "compiler/support/match.h"

namespace vicinal::analysis {
namespace {

using ir::NodeId;
using ir::Op;
using ir::SymbolKind;
using ir::Type;
using ranges::Range;

constexpr std::int64_t kLowest = std::numeric_limits<std::int32_t>::min(),
                       kHighest = std::numeric_limits<std::int32_t>::max();
// The last coordinate or position: below an extent, which is below 2^31.
constexpr std::int64_t kLast = kHighest - 1;

Range natural() {
  return {0, static_cast<int>(kHighest), 1};
}
Range coordinate() {
  return {0, static_cast<int>(kLast), 1};
}
Range any_distance() {
  return {static_cast<int>(-kLast), static_cast<int>(kLast), 1};
}

// query * (the query's coordinate) + key * (the key's) + constant, along one axis, in whole numbers: a value
// of the IR has this form only where it does not wrap.
constexpr int kPositions = -1, kNoAxis = -2;
struct Form {
  int axis = kNoAxis;
  int query = 0, key = 0;
  std::int64_t constant = 0;
};
struct Bounds {
  std::int64_t low, high;
  std::int64_t step;
};

class Evaluation {
 public:
  Evaluation(const ir::Module& module, const Distances& distances)
      : m_(module), distances_(distances), values_(module.size()), forms_(module.size()) {}

  std::vector<ranges::Truth> run() {
    std::vector<ranges::Truth> result(m_.size(), ranges::any_truth());
    for (std::uint32_t n = 0; n < m_.size(); ++n) {
      const ir::Node& node = m_.nodes()[n];
      values_[n] = support::match(
          node.what, [&](const ir::Constant& c) { return constant(n, c); },
          [&](const ir::Symbol& s) { return symbol(n, s); },
          [&](const ir::Apply& a) { return apply(n, a.op, node); },
          [&](const auto&) { return anything(node.type); });
      if (node.type == Type::boolean) result[n] = values_[n].b;
    }
    return result;
  }

 private:
  SetValue constant(std::uint32_t n, const ir::Constant& c) {
    const ir::Value v = ir::value_of(c);
    if (c.type == Type::integer) forms_[n] = Form{.constant = v.i};
    return single(c.type, v);
  }

  SetValue symbol(std::uint32_t n, const ir::Symbol& s) {
    const auto place = [&](int axis, bool key) {
      forms_[n] = Form{axis, key ? 0 : 1, key ? 1 : 0, 0};
      return SetValue{.i = as_range(*bounds(*forms_[n]))};
    };
    // Along one axis the position is the coordinate.
    const int positions = m_.axes.size() == 1 ? 0 : kPositions;
    switch (s.kind) {
      case SymbolKind::q: return place(positions, false);
      case SymbolKind::k: return place(positions, true);
      case SymbolKind::q_axis: return place(static_cast<int>(s.index), false);
      case SymbolKind::k_axis: return place(static_cast<int>(s.index), true);
      case SymbolKind::q_index:
        if (!m_.align_end) return place(positions, false);
        return {.i = coordinate()};
      case SymbolKind::param:
      case SymbolKind::score:
      case SymbolKind::out:
      case SymbolKind::lse:
      case SymbolKind::k_context:
      case SymbolKind::argument: return anything(m_.nodes()[n].type);
      default: return {.i = natural()};  // an extent, a batch or a head
    }
  }

  SetValue apply(std::uint32_t n, Op op, const ir::Node& node) {
    const auto form = [&](std::size_t i) { return forms_[node.operands[i].value]; };
    if (op == Op::add_i) forms_[n] = exact(sum(form(0), form(1), 1));
    if (op == Op::sub_i) forms_[n] = exact(sum(form(0), form(1), -1));
    if (op == Op::neg_i) forms_[n] = exact(sum(Form{}, form(0), -1));
    if (forms_[n]) return {.i = as_range(*bounds(*forms_[n]))};
    if (op == Op::lt_i || op == Op::le_i || op == Op::eq_i || op == Op::ne_i) {
      // Of the difference, which is exact in whole numbers whether or not it would fit an int.
      const std::optional<Form> difference = sum(form(0), form(1), -1);
      if (const auto b = difference ? bounds(*difference) : std::nullopt; b && fits(*b))
        return apply_rule(op, {.i = as_range(*b)}, {.i = ranges::point(0)}, {});
    }
    SetValue operands[ir::kMaxArity] = {};
    for (std::size_t i = 0; i < node.operands.size(); ++i) operands[i] = values_[node.operands[i].value];
    return apply_rule(op, operands[0], operands[1], operands[2]);
  }

  static std::optional<Form> sum(const std::optional<Form>& x, const std::optional<Form>& y, int sign) {
    if (!x || !y) return std::nullopt;
    if (x->axis != kNoAxis && y->axis != kNoAxis && x->axis != y->axis) return std::nullopt;
    Form f{x->axis == kNoAxis ? y->axis : x->axis, x->query + sign * y->query, x->key + sign * y->key,
           x->constant + sign * y->constant};
    if (f.query == 0 && f.key == 0) f.axis = kNoAxis;
    return f;
  }

  // The range of a form; nothing for one that is neither a coordinate nor a distance.
  std::optional<Bounds> bounds(const Form& f) const {
    const std::int64_t c = f.constant;
    if (f.query == 0 && f.key == 0) return Bounds{c, c, 0};
    // `align = end` shifts q by keys - tokens, at the least to -kLast.
    const std::int64_t first = f.query != 0 && m_.align_end ? -kLast : 0;
    if (f.query + f.key == 1 && f.query * f.key == 0) return Bounds{c + first, c + kLast, 1};
    if (f.query + f.key == -1 && f.query * f.key == 0) return Bounds{c - kLast, c - first, 1};
    if (f.query * f.key != -1) return std::nullopt;
    const Range& d =
        f.axis == kPositions ? distances_.position : distances_.axis[static_cast<std::size_t>(f.axis)];
    const std::int64_t step = d.step;
    return f.key == 1 ? Bounds{d.low + c, d.high + c, step} : Bounds{c - d.high, c - d.low, step};
  }
  static bool fits(const Bounds& b) { return b.low >= kLowest && b.high <= kHighest; }
  static Range as_range(const Bounds& b) {
    return ranges::make_range(b.low, b.high, static_cast<vicinal::u32>(b.step));
  }
  std::optional<Form> exact(const std::optional<Form>& f) const {
    if (!f) return std::nullopt;
    const auto b = bounds(*f);
    return b && fits(*b) ? f : std::nullopt;
  }

  const ir::Module& m_;
  const Distances& distances_;
  std::vector<SetValue> values_;
  std::vector<std::optional<Form>> forms_;
};

}  // namespace

Distances neighborhood_distances(const ir::Module& module) {
  Distances result{any_distance(), {}};
  for (const ir::Axis& a : module.axes) {
    const auto value = [&](NodeId id, std::int64_t otherwise) -> std::optional<std::int64_t> {
      if (!id.valid()) return otherwise;
      const auto v = module.constant_value(id);
      return v ? std::optional<std::int64_t>(v->i) : std::nullopt;
    };
    Range d = any_distance();
    const auto dilation = value(a.dilation, 1), window = value(a.window, 0);
    if (dilation && *dilation >= 1) {
      // A query lies in its own window (the stride is at most the window), and keys are of its group. The
      // farthest multiple of the dilation that a grid can have:
      std::int64_t most = kLast / *dilation * *dilation;
      if (window && *window >= 1) most = std::min(most, (*window - 1) * *dilation);
      d = ranges::make_range(-most, a.causal ? 0 : most, static_cast<vicinal::u32>(*dilation));
    } else if (a.causal) {
      d.high = 0;
    }
    result.axis.push_back(d);
  }
  return result;
}

std::vector<ranges::Truth> truths(const ir::Module& module, const Distances& distances) {
  return Evaluation(module, distances).run();
}

}  // namespace vicinal::analysis
