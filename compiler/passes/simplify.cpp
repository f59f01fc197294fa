#include <cmath>
#include <limits>

#include "compiler/passes/passes.h"
#include "compiler/passes/rewrite.h"

namespace vicinal::passes {
namespace {

using ir::Module;
using ir::Node;
using ir::NodeId;
using ir::Op;

// One node and short questions about its operands.
struct Matcher {
  Module& m;
  const Node& node;

  NodeId operand(std::size_t i) const { return node.operands[i]; }
  bool same(std::size_t i, std::size_t j) const { return operand(i) == operand(j); }
  bool is_int(std::size_t i, std::int32_t wanted) const {
    const auto v = m.constant_value(operand(i));
    return v && m[operand(i)].type == ir::Type::integer && v->i == wanted;
  }
  bool is_real(std::size_t i, double wanted) const {
    const auto v = m.constant_value(operand(i));
    return v && m[operand(i)].type == ir::Type::real && v->f == wanted &&
           !std::signbit(v->f) == !std::signbit(wanted);
  }
  bool is_bool(std::size_t i, bool wanted) const {
    const auto v = m.constant_value(operand(i));
    return v && m[operand(i)].type == ir::Type::boolean && v->b == wanted;
  }
  const Node* applied(NodeId id, Op op) const {
    const auto* apply = std::get_if<ir::Apply>(&m[id].what);
    return apply != nullptr && apply->op == op ? &m[id] : nullptr;
  }
};

// A rule returns what stands for the node, or no id when it does not match. A line each, by operation.
NodeId rule(Op op, const Matcher& x) {
  Module& m = x.m;
  switch (op) {
    case Op::add_i:
      if (x.is_int(1, 0)) return x.operand(0);
      // (a + c) + d with constants: one sum, since integers wrap.
      if (const Node* inner = x.applied(x.operand(0), Op::add_i);
          inner != nullptr && m.is_constant(x.operand(1)) && m.is_constant(inner->operands[1])) {
        const NodeId a = inner->operands[0];
        const auto c = static_cast<std::uint32_t>(m.constant_value(inner->operands[1])->i),
                   d = static_cast<std::uint32_t>(m.constant_value(x.operand(1))->i);
        return m.apply(Op::add_i, {a, m.constant(static_cast<std::int32_t>(c + d))});
      }
      break;
    case Op::sub_i:
      if (x.is_int(1, 0)) return x.operand(0);
      if (x.same(0, 1)) return m.constant(0);
      break;
    case Op::mul_i:
      if (x.is_int(1, 1)) return x.operand(0);
      if (x.is_int(1, 0)) return x.operand(1);
      break;
    case Op::floordiv_i:
      if (x.is_int(1, 1)) return x.operand(0);
      break;
    case Op::floormod_i:
      if (x.is_int(1, 1)) return m.constant(0);
      break;
    case Op::neg_i:
      if (const Node* inner = x.applied(x.operand(0), Op::neg_i)) return inner->operands[0];
      break;
    case Op::neg_f:
      if (const Node* inner = x.applied(x.operand(0), Op::neg_f)) return inner->operands[0];
      break;
    case Op::min_i:
    case Op::max_i:
    case Op::min_f:
    case Op::max_f:
    case Op::bitand_i:
    case Op::bitor_i:
      if (x.same(0, 1)) return x.operand(0);
      break;
    case Op::shl_i:
    case Op::shr_i:
      if (x.is_int(1, 0)) return x.operand(0);
      break;
    case Op::eq_i:
    case Op::le_i:
      if (x.same(0, 1)) return m.constant(true);
      break;
    case Op::ne_i:
    case Op::lt_i:
      if (x.same(0, 1)) return m.constant(false);
      break;
    case Op::add_f:
      if (x.is_real(1, -0.0)) return x.operand(0);
      break;
    case Op::sub_f:
      if (x.is_real(1, 0.0)) return x.operand(0);
      break;
    case Op::mul_f:
    case Op::div_f:
      if (x.is_real(1, 1.0)) return x.operand(0);
      break;
    case Op::and_b:
      if (x.is_bool(1, true) || x.same(0, 1)) return x.operand(0);
      if (x.is_bool(0, true)) return x.operand(1);
      if (x.is_bool(1, false) || x.is_bool(0, false)) return m.constant(false);
      if (const Node* no = x.applied(x.operand(0), Op::not_b);
          no != nullptr && no->operands[0] == x.operand(1))
        return m.constant(false);
      if (const Node* no = x.applied(x.operand(1), Op::not_b);
          no != nullptr && no->operands[0] == x.operand(0))
        return m.constant(false);
      break;
    case Op::or_b:
      if (x.is_bool(1, false) || x.same(0, 1)) return x.operand(0);
      if (x.is_bool(0, false)) return x.operand(1);
      if (x.is_bool(1, true) || x.is_bool(0, true)) return m.constant(true);
      if (const Node* no = x.applied(x.operand(0), Op::not_b);
          no != nullptr && no->operands[0] == x.operand(1))
        return m.constant(true);
      if (const Node* no = x.applied(x.operand(1), Op::not_b);
          no != nullptr && no->operands[0] == x.operand(0))
        return m.constant(true);
      break;
    case Op::not_b:
      if (const Node* inner = x.applied(x.operand(0), Op::not_b)) return inner->operands[0];
      // Total orders only: NaN makes the float comparisons another matter.
      if (const Node* inner = x.applied(x.operand(0), Op::lt_i))
        return m.apply(Op::le_i, {inner->operands[1], inner->operands[0]});
      if (const Node* inner = x.applied(x.operand(0), Op::le_i))
        return m.apply(Op::lt_i, {inner->operands[1], inner->operands[0]});
      if (const Node* inner = x.applied(x.operand(0), Op::eq_i))
        return m.apply(Op::ne_i, {inner->operands[0], inner->operands[1]});
      if (const Node* inner = x.applied(x.operand(0), Op::ne_i))
        return m.apply(Op::eq_i, {inner->operands[0], inner->operands[1]});
      break;
    case Op::select_i:
    case Op::select_f:
    case Op::select_b:
      if (x.same(1, 2) || x.is_bool(0, true)) return x.operand(1);
      if (x.is_bool(0, false)) return x.operand(2);
      if (op == Op::select_b && x.is_bool(1, true)) return m.apply(Op::or_b, {x.operand(0), x.operand(2)});
      if (op == Op::select_b && x.is_bool(2, false)) return m.apply(Op::and_b, {x.operand(0), x.operand(1)});
      break;
    default: break;
  }
  return {};
}

}  // namespace

ir::Module simplify(const ir::Module& module) {
  return rewrite(module, [](Module& m, const Node& node) {
    const auto* apply = std::get_if<ir::Apply>(&node.what);
    if (apply == nullptr) return m.add(node);
    const NodeId simpler = rule(apply->op, Matcher{m, node});
    return simpler.valid() ? simpler : m.add(node);
  });
}

}  // namespace vicinal::passes
