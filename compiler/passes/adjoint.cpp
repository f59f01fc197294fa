#include "compiler/passes/adjoint.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "compiler/support/check.h"

namespace vicinal::passes {
namespace {

using ir::Module;
using ir::NodeId;
using ir::Op;

// Constants of a product as few as fp32 allows without rounding.
class Coefficient {
 public:
  explicit Coefficient(Module& module) : m_(module) {}

  void multiply(double factor) {
    const double product = value_ * factor;
    if (!representable(product)) flush();
    value_ = representable(product) ? product : factor;
  }
  // Whether `divisor` could be divided by as well.
  bool divide(double divisor) {
    if (!representable(value_ / divisor) || value_ / divisor * divisor != value_) return false;
    value_ /= divisor;
    return true;
  }
  // -1 is not among them: it is a sign.
  std::vector<NodeId> factors(bool& negative) {
    negative = value_ == -1;
    if (!negative) flush();
    return std::move(factors_);
  }

 private:
  static bool representable(double x) {
    return std::isfinite(x) && static_cast<double>(static_cast<float>(x)) == x;
  }
  void flush() {
    if (value_ != 1) factors_.push_back(m_.constant(static_cast<float>(value_)));
    value_ = 1;
  }

  Module& m_;
  double value_ = 1;
  std::vector<NodeId> factors_;
};

NodeId conjunction(Module& m, std::span<const Literal> path) {
  NodeId all;
  for (const Literal& l : path) {
    const NodeId one = l.holds ? l.condition : m.apply(Op::not_b, {l.condition});
    all = all.valid() ? m.apply(Op::and_b, {all, one}) : one;
  }
  return all;
}

NodeId or_zero(Module& m, std::span<const Literal> path, NodeId value) {
  if (path.empty()) return value;
  const NodeId zero = m.constant(0.0f);
  if (path.size() == 1 && !path[0].holds) return m.apply(Op::select_f, {path[0].condition, zero, value});
  return m.apply(Op::select_f, {conjunction(m, path), value, zero});
}

// More than these are not searched for pairs, which takes the square of their number.
constexpr std::size_t kMostPaired = 64;

// Those of one path as one sum each.
void add_up(Module& m, std::vector<Adjoint>& terms) {
  std::map<std::vector<std::pair<NodeId, bool>>, std::size_t> place;
  std::vector<Adjoint> sums;
  for (Adjoint& t : terms) {
    std::vector<std::pair<NodeId, bool>> path;
    for (const Literal& l : t.path) path.emplace_back(l.condition, l.holds);
    const auto [it, is_new] = place.try_emplace(std::move(path), sums.size());
    if (is_new) {
      sums.push_back(std::move(t));
      continue;
    }
    Adjoint& sum = sums[it->second];
    const NodeId first = node_of(m, sum.value);
    sum.value = {{m.apply(Op::add_f, {first, node_of(m, t.value)})}, {}};
    sum.vanishes = false;
  }
  terms = std::move(sums);
}

// Two that differ in whether their last condition holds are a choice between them; two of one path a sum.
bool merge(Module& m, std::vector<Adjoint>& terms) {
  for (std::size_t i = 0; i < terms.size(); ++i) {
    for (std::size_t j = i + 1; j < terms.size(); ++j) {
      Adjoint &a = terms[i], &b = terms[j];
      if (a.path.size() != b.path.size()) continue;
      const bool same = a.path == b.path;
      bool opposite = false;
      if (!same && !a.path.empty()) {
        const Literal &x = a.path.back(), &y = b.path.back();
        opposite = x.condition == y.condition && x.holds != y.holds &&
                   std::equal(a.path.begin(), a.path.end() - 1, b.path.begin());
      }
      if (!same && !opposite) continue;
      NodeId first = node_of(m, a.value), second = node_of(m, b.value);
      if (same) {
        first = m.apply(Op::add_f, {first, second});
      } else {
        const Literal last = a.path.back();
        a.path.pop_back();
        if (!last.holds) std::swap(first, second);
        first = first == second ? first : m.apply(Op::select_f, {last.condition, first, second});
      }
      a.value = {{first}, {}};
      a.vanishes = false;
      terms.erase(terms.begin() + static_cast<std::ptrdiff_t>(j));
      return true;
    }
  }
  return false;
}

}  // namespace

Adjoint times(Adjoint adjoint, NodeId factor) {
  adjoint.value.over.push_back(factor);
  adjoint.vanishes = false;  // 0 times infinity is NaN
  return adjoint;
}
Adjoint divided_by(Adjoint adjoint, NodeId divisor) {
  adjoint.value.under.push_back(divisor);
  adjoint.vanishes = false;
  return adjoint;
}
Adjoint where(Adjoint adjoint, NodeId condition, bool holds) {
  const Literal literal{condition, holds};
  if (std::ranges::find(adjoint.path, literal) != adjoint.path.end()) return adjoint;
  adjoint.path.push_back(literal);
  adjoint.vanishes = false;
  return adjoint;
}

NodeId node_of(Module& m, const Product& product) {
  std::vector<NodeId> over, under;
  Coefficient coefficient(m);
  for (const NodeId id : product.over) {
    if (const auto constant = m.constant_value(id))
      coefficient.multiply(constant->f);
    else
      over.push_back(id);
  }
  for (const NodeId id : product.under) {
    const auto same = std::ranges::find(over, id);
    const auto constant = m.constant_value(id);
    if (same != over.end())
      over.erase(same);
    else if (!constant || !coefficient.divide(constant->f))
      under.push_back(id);
  }
  bool negative = false;
  std::vector<NodeId> factors = coefficient.factors(negative);
  factors.insert(factors.end(), over.begin(), over.end());
  NodeId result;
  for (const NodeId id : factors) result = result.valid() ? m.apply(Op::mul_f, {result, id}) : id;
  if (!result.valid()) result = m.constant(negative ? -1.0f : 1.0f), negative = false;
  for (const NodeId id : under) result = m.apply(Op::div_f, {result, id});
  return negative ? m.apply(Op::neg_f, {result}) : result;
}

Adjoint sum_of(Module& m, std::vector<Adjoint> terms) {
  VICINAL_ASSERT(!terms.empty(), "something reaches the node");
  add_up(m, terms);
  if (terms.size() <= kMostPaired)
    while (merge(m, terms)) {
    }
  if (terms.size() == 1) return std::move(terms[0]);
  // What all of them need stays a path; the rest of each says where it counts.
  std::size_t common = 0;
  const auto shared = [&](std::size_t i) {
    return std::ranges::all_of(
        terms, [&](const Adjoint& t) { return i < t.path.size() && t.path[i] == terms[0].path[i]; });
  };
  while (common < terms[0].path.size() && shared(common)) ++common;
  Adjoint result;
  result.path.assign(terms[0].path.begin(), terms[0].path.begin() + static_cast<std::ptrdiff_t>(common));
  NodeId sum, some;
  bool everywhere = false;
  for (const Adjoint& t : terms) {
    const std::span<const Literal> rest = std::span(t.path).subspan(common);
    const NodeId value = or_zero(m, rest, node_of(m, t.value));
    sum = sum.valid() ? m.apply(Op::add_f, {sum, value}) : value;
    everywhere = everywhere || rest.empty();
    if (rest.empty()) continue;
    const NodeId here = conjunction(m, rest);
    some = some.valid() ? m.apply(Op::or_b, {some, here}) : here;
  }
  if (!everywhere) result.path.push_back({some, true});
  result.value = {{sum}, {}};
  result.vanishes = !everywhere;
  return result;
}

NodeId node_of(Module& m, const Adjoint& adjoint) {
  const std::span<const Literal> path = adjoint.path;
  return or_zero(m, adjoint.vanishes ? path.first(path.size() - 1) : path, node_of(m, adjoint.value));
}

}  // namespace vicinal::passes
