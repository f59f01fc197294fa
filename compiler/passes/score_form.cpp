#include "compiler/passes/score_form.h"

#include <cmath>
#include <utility>
#include <vector>

#include "compiler/analysis/whole_sum.h"
#include "compiler/ir/reachable.h"
#include "compiler/passes/rewrite.h"

namespace vicinal::passes {
namespace {

using analysis::RowSum;
using analysis::WholeSums;
using ir::Module;
using ir::Node;
using ir::NodeId;
using ir::Op;
using ir::SymbolKind;

// Sums of more addends are left as they are, and a chain of shared nodes can have very many.
constexpr std::size_t kMaxAddends = 64;

// What is known of a value when all that is loaded or given at launch is finite.
struct Certainty {
  bool finite = false;    // also in fp32, unless products and sums leave it
  bool positive = false;  // as a real number, and finite as one
};

std::vector<Certainty> certainties(const Module& m, const WholeSums& sums) {
  std::vector<Certainty> known(m.size());
  for (std::uint32_t n = 0; n < m.size(); ++n) {
    const Node& node = m.nodes()[n];
    Certainty& c = known[n];
    if (node.type != ir::Type::real) {
      c.finite = true;
      continue;
    }
    if (const auto value = m.constant_value(NodeId{n})) {
      c = {std::isfinite(value->f), std::isfinite(value->f) && value->f > 0};
      continue;
    }
    const auto* apply = std::get_if<ir::Apply>(&node.what);
    if (apply == nullptr) {  // a load, a dot, a param, the score
      c.finite = true;
      continue;
    }
    const auto operand = [&](std::size_t i) { return known[node.operands[i].value]; };
    const auto both = [&](bool Certainty::*what) { return operand(0).*what && operand(1).*what; };
    switch (apply->op) {
      case Op::float_i: c = {true, sums.range(node.operands[0]).low > 0}; break;
      case Op::add_f:
      case Op::mul_f:
      case Op::min_f: c = {both(&Certainty::finite), both(&Certainty::positive)}; break;
      case Op::max_f:
        c.finite = both(&Certainty::finite);
        c.positive = both(&Certainty::positive) || (c.finite && (operand(0).positive || operand(1).positive));
        break;
      case Op::div_f: {
        const auto divisor = m.constant_value(node.operands[1]);
        c.finite = operand(0).finite && divisor && std::isfinite(divisor->f) && divisor->f != 0;
        c.positive = both(&Certainty::positive);
        break;
      }
      case Op::sub_f: c.finite = both(&Certainty::finite); break;
      case Op::neg_f:
      case Op::abs_f:
      case Op::sign_f:
      case Op::floor_f:
      case Op::ceil_f:
      case Op::round_f:
      case Op::tanh_f:
      case Op::tanh_approx_f:
      case Op::sin_f:
      case Op::cos_f:
      case Op::erf_f: c.finite = operand(0).finite; break;
      case Op::sigmoid_f: c = {operand(0).finite, operand(0).finite}; break;
      case Op::exp_f:
      case Op::exp2_f: c.positive = operand(0).finite; break;
      case Op::pow_f: c.positive = operand(0).positive && operand(1).finite; break;
      case Op::sqrt_f: c = {operand(0).finite && operand(0).positive, operand(0).positive}; break;
      case Op::rsqrt_f: c.positive = operand(0).positive; break;
      case Op::select_f:
        c = {operand(1).finite && operand(2).finite, operand(1).positive && operand(2).positive};
        break;
      default: break;
    }
  }
  return known;
}

class Splitting {
 public:
  Splitting(const Module& module, float default_scale, Distances distances)
      : m_(prepared(module)),
        distances_(distances),
        old_size_(m_.size()),
        varies_(ir::variance(m_)),
        sums_(m_),
        known_(certainties(m_, sums_)) {
    scale_ = m_.root(ir::Root::scale);
    if (!scale_.valid()) scale_ = m_.constant(default_scale);
  }

  ScoreForm run() && {
    NodeId& root = m_.root(ir::Root::score);
    find_products(root);
    if (m_.normalize == ir::Normalize::softmax)
      root = core(addends(root));
    else
      root = value(root);
    m_.root(ir::Root::scale) = {};
    const auto* symbol = std::get_if<ir::Symbol>(&m_[root].what);
    const bool core_is_score = symbol != nullptr && symbol->kind == SymbolKind::score;
    return {std::move(m_), factor_, slope_, shift_, core_is_score};
  }

 private:
  // rest * slice, where `slice` varies with the batch and heads at most; one that is not valid is 1.
  struct Product {
    NodeId rest, slice;
  };
  struct Addend {
    NodeId node;
    bool minus;
  };

  static Module prepared(const Module& module) {
    Module m = rewrite(module, [](Module& to, const Node& node) { return to.add(node); });
    if (NodeId& score = m.root(ir::Root::score); !score.valid()) score = m.symbol(SymbolKind::score);
    return m;
  }

  bool varies(NodeId old, int with) const { return (varies_[old.value] & with) != 0; }
  Op op_of(NodeId id) const {
    const auto* apply = std::get_if<ir::Apply>(&m_[id].what);
    return apply == nullptr ? Op::select_b : apply->op;
  }

  // Products, by old node. New nodes stand behind the old ones.

  void find_products(NodeId root) {
    const std::vector<bool> reached = ir::reachable(m_, root);
    products_.resize(old_size_);
    for (std::uint32_t n = 0; n < reached.size(); ++n)
      if (reached[n]) products_[n] = find_product(NodeId{n});
  }

  Product find_product(NodeId id) {
    const Node node = m_[id];  // a copy: the list grows
    if (!varies(id, ~(ir::kBatch | ir::kHead))) return {{}, id};
    if (const auto* s = std::get_if<ir::Symbol>(&node.what); s != nullptr && s->kind == SymbolKind::score)
      return {id, scale_};
    if (const auto* apply = std::get_if<ir::Apply>(&node.what)) {
      const auto operand = [&](std::size_t i) { return products_[node.operands[i].value]; };
      if (apply->op == Op::neg_f) return {operand(0).rest, negated(or_one(operand(0).slice))};
      const bool multiplies = apply->op == Op::mul_f;
      if (multiplies || (apply->op == Op::div_f && !operand(1).rest.valid()))
        if (const auto slice = slices(apply->op, operand(0).slice, operand(1).slice))
          return {multiplies ? times(operand(0).rest, operand(1).rest) : operand(0).rest, *slice};
    }
    if (!varies(id, ir::kScore)) return {id, {}};
    Node now = node;
    for (NodeId& o : now.operands) o = value(o);
    return {m_.add(now), {}};
  }

  // What stands for an old node. Without the score in it there is no reason to touch it, and one not to:
  // where it is rounded or compared, the last bit counts.
  NodeId value(NodeId old) {
    return varies(old, ir::kScore) ? or_one(times(products_[old.value].rest, products_[old.value].slice))
                                   : old;
  }

  // x * y or x / y; nothing where a constant would leave the range in which fp32 is precise.
  std::optional<NodeId> slices(Op op, NodeId x, NodeId y) {
    if (!y.valid()) return x;
    if (!x.valid() && op == Op::mul_f) return y;
    x = or_one(x);
    const auto a = m_.constant_value(x), b = m_.constant_value(y);
    if (a && !b && op == Op::mul_f) std::swap(x, y);
    if (!a || !b) return m_.apply(op, {x, y});
    const ir::Value operands[] = {*a, *b};
    const auto result = static_cast<float>(ir::info(op).exact(operands).f);
    return std::isnormal(result) ? std::optional(m_.constant(result)) : std::nullopt;
  }

  NodeId times(NodeId x, NodeId y) {
    if (!x.valid() || !y.valid()) return x.valid() ? x : y;
    return is_one(y) ? x : is_one(x) ? y : m_.apply(Op::mul_f, {x, y});
  }
  bool is_one(NodeId id) const {
    const auto value = m_.constant_value(id);
    return value && value->f == 1;
  }
  NodeId or_one(NodeId id) { return id.valid() ? id : m_.constant(1.0f); }
  NodeId negated(NodeId id) {
    if (const auto value = m_.constant_value(id)) return m_.constant(static_cast<float>(-value->f));
    return op_of(id) == Op::neg_f ? m_[id].operands[0] : m_.apply(Op::neg_f, {id});
  }
  // `total`, which may not be valid yet, and x or less x.
  NodeId plus(NodeId total, NodeId x, bool minus) {
    if (!total.valid()) return minus ? negated(x) : x;
    return m_.apply(minus ? Op::sub_f : Op::add_f, {total, x});
  }

  // Addends.

  std::vector<Addend> addends(NodeId root) const {
    std::vector<Addend> result, open = {{root, false}};
    while (!open.empty()) {
      const Addend a = open.back();
      open.pop_back();
      const Op op = op_of(a.node);
      const bool sum = op == Op::add_f || op == Op::sub_f || op == Op::neg_f;
      if (!sum || !varies(a.node, ir::kKey | ir::kScore) || open.size() + result.size() >= kMaxAddends) {
        result.push_back(a);
        continue;
      }
      const ir::Operands& operands = m_[a.node].operands;
      if (op != Op::neg_f) open.push_back({operands[1], a.minus != (op == Op::sub_f)});
      open.push_back({operands[0], a.minus != (op == Op::neg_f)});
    }
    return result;
  }

  // Takes factor, slope and shift out; what is left.
  NodeId core(const std::vector<Addend>& all) {
    std::vector<Addend> left;
    for (const Addend& a : all)
      if (!shift(a) && !slope(a)) left.push_back(a);
    if (left.empty()) return m_.constant(0.0f);
    if (left.size() == 1) {
      Product p = products_[left[0].node.value];
      if (left[0].minus) p.slice = negated(or_one(p.slice));
      if (p.rest.valid() && p.slice.valid() && is_positive(p.slice)) {
        if (!is_one(p.slice)) factor_ = p.slice;
        return p.rest;
      }
      return times(p.rest, p.slice);
    }
    NodeId sum;
    for (const Addend& a : left) sum = plus(sum, value(a.node), a.minus);
    return sum;
  }

  bool is_positive(NodeId slice) const { return certainties(m_, WholeSums(m_))[slice.value].positive; }

  // An infinite or undefined row says something of its weights, and stays.
  bool shift(const Addend& a) {
    if (varies(a.node, ir::kKey | ir::kScore) || !known_[a.node.value].finite) return false;
    shift_ = plus(shift_, a.node, a.minus);
    return true;
  }

  // slice * float(x), where x = +-k + row = +-(k - q) + (row +- q).
  bool slope(const Addend& a) {
    if (distances_ == Distances::core) return false;
    const Product& p = products_[a.node.value];
    if (!p.rest.valid() || op_of(p.rest) != Op::float_i) return false;
    const NodeId whole = m_[p.rest].operands[0];
    if (whole.value >= old_size_) return false;  // made of the score
    const auto& x = sums_[whole];
    if (!x || (x->key != 1 && x->key != -1)) return false;
    const bool down = x->key < 0;
    const RowSum row = less_query(x->row, down);
    const bool has_row = !row.terms.empty() || row.constant != 0;
    if (has_row && !known_[a.node.value].finite) return false;
    const NodeId slice = or_one(p.slice);
    slope_ = plus(slope_, slice, a.minus != down);
    if (has_row) shift_ = plus(shift_, times(in_floats(row), slice), a.minus);
    return true;
  }

  // row + q, or row - q for x that goes down with the key.
  RowSum less_query(RowSum row, bool down) {
    for (RowSum::Term& t : row.terms)
      if (analysis::is_query(m_, t.value)) t.value = m_.symbol(SymbolKind::q);
    return row.plus({{{m_.symbol(SymbolKind::q)}}, 0}, down);
  }

  // A whole number that may not fit an int.
  NodeId in_floats(const RowSum& row) {
    NodeId sum;
    for (const RowSum::Term& t : row.terms) sum = plus(sum, m_.apply(Op::float_i, {t.value}), t.minus);
    if (row.constant != 0 || !sum.valid())
      sum = plus(sum, m_.constant(static_cast<float>(row.constant)), false);
    return sum;
  }

  Module m_;
  const Distances distances_;
  const std::size_t old_size_;
  const std::vector<std::uint8_t> varies_;
  const WholeSums sums_;
  const std::vector<Certainty> known_;
  std::vector<Product> products_;
  NodeId scale_, factor_, slope_, shift_;
};

}  // namespace

ScoreForm score_form(const Module& module, float default_scale, Distances distances) {
  return Splitting(module, default_scale, distances).run();
}

}  // namespace vicinal::passes
