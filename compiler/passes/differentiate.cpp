#include "compiler/passes/differentiate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "compiler/passes/adjoint.h"
#include "compiler/passes/rewrite.h"

namespace vicinal::passes {
namespace {

using ir::Module;
using ir::Node;
using ir::NodeId;
using ir::Op;
using ir::Root;

// Whether a node is what derivatives are taken with respect to.
bool is_leaf(const Module& m, const Node& node) {
  if (const auto* s = std::get_if<ir::Symbol>(&node.what)) {
    switch (s->kind) {
      case ir::SymbolKind::score:
      case ir::SymbolKind::out:
      case ir::SymbolKind::lse: return true;
      case ir::SymbolKind::param: return m.params[s->index].learnable;
      default: return false;
    }
  }
  if (const auto* l = std::get_if<ir::Load>(&node.what)) return m.inputs[l->input].learnable;
  if (const auto* d = std::get_if<ir::Dot>(&node.what))
    return m.inputs[d->first].learnable || m.inputs[d->second].learnable;
  return false;
}

// One application, its adjoint, and who gets a share of it.
class Rule {
 public:
  Rule(Module& module, NodeId node, Adjoint adjoint, std::vector<std::vector<Adjoint>>& arriving,
       const std::vector<bool>& active)
      : m_(module),
        node_(node),
        operands_(module[node].operands),
        adjoint_(std::move(adjoint)),
        arriving_(arriving),
        active_(active) {}

  // A line for each operation; what is not here has slope 0 wherever it has one. y is the result.
  void apply(Op op) {
    const NodeId y = node_;
    switch (op) {
      case Op::add_f: return give(0, adjoint_), give(1, adjoint_);
      case Op::sub_f: return give(0, adjoint_), give(1, times(adjoint_, real(-1)));
      case Op::neg_f: return give(0, times(adjoint_, real(-1)));
      case Op::mul_f: return multiplication();
      case Op::div_f:
        give(0, divided_by(adjoint_, x(1)));
        return give(1, divided_by(times(times(adjoint_, real(-1)), y), x(1)));
      case Op::floormod_f:
        give(0, adjoint_);
        return give(1, times(times(adjoint_, real(-1)), m_.apply(Op::floordiv_f, {x(0), x(1)})));
      case Op::min_f: return choose(below(x(0), x(1)));
      case Op::max_f: return choose(below(x(1), x(0)));
      case Op::select_f: give(1, where(adjoint_, x(0), true)); return give(2, where(adjoint_, x(0), false));
      case Op::abs_f: return scale(m_.apply(Op::sign_f, {x(0)}));
      case Op::sqrt_f: return give(0, divided_by(times(adjoint_, real(0.5f)), y));
      case Op::rsqrt_f: return give(0, times(times(times(times(adjoint_, real(-0.5f)), y), y), y));
      case Op::exp_f: return scale(y);
      case Op::exp2_f: return give(0, times(times(adjoint_, log_of_2()), y));
      case Op::log_f: return give(0, divided_by(adjoint_, x(0)));
      case Op::log2_f: return give(0, divided_by(divided_by(adjoint_, log_of_2()), x(0)));
      case Op::tanh_f:
      case Op::tanh_approx_f: return scale(m_.apply(Op::sub_f, {real(1), product(y, y)}));
      case Op::sigmoid_f: return give(0, times(times(adjoint_, y), m_.apply(Op::sub_f, {real(1), y})));
      case Op::sin_f: return scale(m_.apply(Op::cos_f, {x(0)}));
      case Op::cos_f: return give(0, times(times(adjoint_, real(-1)), m_.apply(Op::sin_f, {x(0)})));
      case Op::tan_f: return scale(m_.apply(Op::add_f, {real(1), product(y, y)}));
      case Op::erf_f: return gaussian();
      case Op::pow_f: return power();
      default: return;
    }
  }

 private:
  NodeId x(std::size_t i) const { return operands_[i]; }
  NodeId real(float value) { return m_.constant(value); }
  NodeId product(NodeId a, NodeId b) { return m_.apply(Op::mul_f, {a, b}); }
  NodeId log_of_2() { return m_.apply(Op::log_f, {real(2)}); }  // folds for kernels; in double it is double

  void give(std::size_t operand, Adjoint share) {
    if (active_[x(operand).value]) arriving_[x(operand).value].push_back(std::move(share));
  }
  void scale(NodeId slope) { give(0, times(adjoint_, slope)); }

  void multiplication() {
    if (x(0) == x(1)) return give(0, times(times(adjoint_, real(2)), x(0)));
    give(0, times(adjoint_, x(1)));
    give(1, times(adjoint_, x(0)));
  }

  // Of min and max: the first operand is the result. A number is chosen over NaN.
  NodeId below(NodeId low, NodeId high) {
    const NodeId less = m_.apply(Op::lt_f, {low, high});
    return m_.is_constant(x(1)) ? less : m_.apply(Op::or_b, {less, m_.apply(Op::isnan_f, {x(1)})});
  }
  void choose(NodeId first) {
    give(0, where(adjoint_, first, true));
    give(1, where(adjoint_, first, false));
  }

  // 2 / sqrt(pi) * exp(-x^2)
  void gaussian() {
    const NodeId bell = m_.apply(Op::exp_f, {m_.apply(Op::neg_f, {product(x(0), x(0))})});
    give(0, times(times(adjoint_, real(static_cast<float>(2 * std::numbers::inv_sqrtpi))), bell));
  }

  // The slope in the base is p x^(p - 1), and 0 for p = 0 even at x = 0; that in the exponent needs a
  // positive base.
  void power() {
    const NodeId base = x(0), exponent = x(1);
    const auto constant = m_.constant_value(exponent);
    if (!(constant && constant->f == 0)) {
      const NodeId less =
          constant ? real(static_cast<float>(constant->f - 1)) : m_.apply(Op::sub_f, {exponent, real(1)});
      const Adjoint share = times(times(adjoint_, exponent), m_.apply(Op::pow_f, {base, less}));
      give(0, constant ? share : where(share, m_.apply(Op::ne_f, {exponent, real(0)}), true));
    }
    give(1, where(times(times(adjoint_, node_), m_.apply(Op::log_f, {base})),
                  m_.apply(Op::lt_f, {real(0), base}), true));
  }

  Module& m_;
  const NodeId node_;
  const ir::Operands operands_;  // a copy: the module's nodes move while it grows
  const Adjoint adjoint_;
  std::vector<std::vector<Adjoint>>& arriving_;
  const std::vector<bool>& active_;
};

// As it is written: nothing has been folded yet.
bool is_minus_infinity(const Module& m, NodeId id) {
  const auto* apply = std::get_if<ir::Apply>(&m[id].what);
  const bool negated = apply != nullptr && apply->op == Op::neg_f;
  const auto value = m.constant_value(negated ? m[id].operands[0] : id);
  return value && std::isinf(value->f) && (value->f < 0) != negated;
}

// Of `score if kept else -inf` only the score has a derivative that anyone asks for.
NodeId where_kept(const Module& m, NodeId score) {
  for (;;) {
    const auto* apply = std::get_if<ir::Apply>(&m[score].what);
    if (apply == nullptr || apply->op != Op::select_f) return score;
    const ir::Operands& choices = m[score].operands;
    if (is_minus_infinity(m, choices[2]))
      score = choices[1];
    else if (is_minus_infinity(m, choices[1]))
      score = choices[2];
    else
      return score;
  }
}

void differentiate(Module& m, Root root, const std::vector<bool>& active) {
  if (!m.root(root).valid()) return;
  const NodeId top = root == Root::score ? where_kept(m, m.root(root)) : m.root(root);
  if (!active[top.value]) return;
  std::vector<std::vector<Adjoint>> arriving(top.value + 1);
  arriving[top.value].push_back({});
  for (std::uint32_t n = top.value + 1; n-- > 0;) {
    if (arriving[n].empty()) continue;
    Adjoint adjoint = sum_of(m, std::move(arriving[n]));
    const NodeId id{n};
    if (is_leaf(m, m[id]))
      m.partials.push_back({root, id, node_of(m, adjoint)});
    else
      Rule(m, id, std::move(adjoint), arriving, active).apply(std::get<ir::Apply>(m[id].what).op);
  }
}

// Nodes through which a leaf is reached by floats.
std::vector<bool> active_nodes(const Module& m) {
  std::vector<bool> active;
  for (const Node& node : m.nodes()) {
    bool reached = is_leaf(m, node);
    if (std::holds_alternative<ir::Apply>(node.what) && node.type == ir::Type::real)
      for (const NodeId id : node.operands)
        reached = reached || (active[id.value] && m[id].type == ir::Type::real);
    active.push_back(reached);
  }
  return active;
}

}  // namespace

Module differentiate(const Module& checked) {
  Module m = checked;
  const std::vector<bool> active = active_nodes(m);
  for (const Root root : {Root::score, Root::scale, Root::sink, Root::output}) differentiate(m, root, active);
  return m;
}

Module drop_zero_partials(const Module& module) {
  Module m = module;
  std::erase_if(m.partials, [&](const ir::Partial& p) {
    const auto value = m.constant_value(p.value);
    return value && value->f == 0;
  });
  return rewrite(m, [](Module& to, const Node& node) { return to.add(node); });
}

}  // namespace vicinal::passes
