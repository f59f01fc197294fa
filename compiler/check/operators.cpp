// Operators: their types, and the operations they stand for.
#include <fmt/format.h>

#include <limits>

#include "compiler/check/expressions.h"

namespace vicinal::check {

using diagnostics::Kind;
using ir::Op;
using ir::Type;
using syntax::TokenKind;

Term ExpressionChecker::unary(Frame& frame, const ast::Unary& u, Range range) {
  if (u.op == TokenKind::kw_not) {
    const NodeId operand = typed(frame, u.operand, Type::boolean, "the operand of `not`");
    return operand.valid() ? Term::scalar(building_.module.apply(Op::not_b, {operand})) : Term{};
  }
  if (const auto* literal = std::get_if<ast::Integer>(&expr(frame, u.operand).what);
      literal != nullptr && u.op == TokenKind::minus && literal->value == 2147483648u)
    return Term::scalar(building_.module.constant(std::numeric_limits<std::int32_t>::min()));
  const NodeId operand = scalar(frame, u.operand);
  if (!operand.valid()) return {};
  if (type(operand) == Type::boolean) {
    auto& d = sink_.report(Kind::bool_arithmetic, range, spelling(u.op));
    if (u.op == TokenKind::tilde)
      d.with_help(fmt::format("write `not {}`", program_.sources.text(expr(frame, u.operand).range)));
    return {};
  }
  if (u.op == TokenKind::plus) return Term::scalar(operand);
  if (u.op == TokenKind::tilde) {
    if (type(operand) == Type::integer) return Term::scalar(building_.module.apply(Op::bitnot_i, {operand}));
    sink_.report(Kind::type_mismatch, range, "the operand of `~`", "an int", "a float");
    return {};
  }
  if (const auto value = building_.module.constant_value(operand); value && type(operand) == Type::real)
    return Term::scalar(building_.module.constant(-static_cast<float>(value->f)));
  return Term::scalar(
      building_.module.apply(type(operand) == Type::integer ? Op::neg_i : Op::neg_f, {operand}));
}

Term ExpressionChecker::logical(Frame& frame, const ast::Binary& b, Range) {
  const bool conjunction = b.op == TokenKind::kw_and;
  const std::string what = fmt::format("an operand of `{}`", spelling(b.op));
  const NodeId left = typed(frame, b.left, Type::boolean, what);
  // The right side counts only where the left one does not decide.
  const NodeId right =
      under(assume(left, conjunction), [&] { return typed(frame, b.right, Type::boolean, what); });
  if (!left.valid() || !right.valid()) return {};
  return Term::scalar(building_.module.apply(conjunction ? Op::and_b : Op::or_b, {left, right}));
}

Term ExpressionChecker::binary(Frame& frame, const ast::Binary& b, Range range) {
  if (b.op == TokenKind::kw_and || b.op == TokenKind::kw_or) return logical(frame, b, range);
  NodeId left = scalar(frame, b.left), right = scalar(frame, b.right);
  if (!left.valid() || !right.valid()) return {};
  if (type(left) == Type::boolean || type(right) == Type::boolean) {
    auto& d = sink_.report(Kind::bool_arithmetic, b.op_range, spelling(b.op))
                  .label(expr(frame, type(left) == Type::boolean ? b.left : b.right).range, "this is a bool");
    const bool both = type(left) == type(right);
    if (both && b.op == TokenKind::ampersand)
      d.fix(b.op_range, "and");
    else if (both && b.op == TokenKind::pipe)
      d.fix(b.op_range, "or");
    else if (both && b.op == TokenKind::caret)
      d.fix(b.op_range, "!=");
    else if (b.op == TokenKind::ampersand || b.op == TokenKind::pipe)
      d.with_help(fmt::format(
          "`{}` binds tighter than a comparison: put the comparisons in parentheses, or write `{}`",
          spelling(b.op), b.op == TokenKind::ampersand ? "and" : "or"));
    else
      d.with_help("turn a bool into a number with `int(...)`, or write `1 if condition else 0`");
    return {};
  }
  struct Row {
    TokenKind token;
    std::optional<Op> on_int, on_float;
  };
  static constexpr Row rows[] = {
      {TokenKind::plus, Op::add_i, Op::add_f},
      {TokenKind::minus, Op::sub_i, Op::sub_f},
      {TokenKind::star, Op::mul_i, Op::mul_f},
      {TokenKind::slash, {}, Op::div_f},
      {TokenKind::slash_slash, Op::floordiv_i, Op::floordiv_f},
      {TokenKind::percent, Op::floormod_i, Op::floormod_f},
      {TokenKind::star_star, {}, Op::pow_f},
      {TokenKind::ampersand, Op::bitand_i, {}},
      {TokenKind::pipe, Op::bitor_i, {}},
      {TokenKind::caret, Op::bitxor_i, {}},
      {TokenKind::shift_left, Op::shl_i, {}},
      {TokenKind::shift_right, Op::shr_i, {}},
  };
  const bool ints = type(left) == Type::integer && type(right) == Type::integer;
  for (const Row& row : rows) {
    if (row.token != b.op) continue;
    if (!row.on_float && !ints) {
      const ExprId culprit = type(left) == Type::real ? b.left : b.right;
      sink_
          .report(Kind::type_mismatch, expr(frame, culprit).range,
                  fmt::format("an operand of `{}`", spelling(b.op)), "an int", "a float")
          .with_help(b.op == TokenKind::caret ? "`^` is exclusive or; a power is written `**`"
                                              : "convert it with `int(...)`");
      return {};
    }
    if (ints && row.on_int) return Term::scalar(building_.module.apply(*row.on_int, {left, right}));
    left = note(convert(left, Type::real), expr(frame, b.left).range);
    right = note(convert(right, Type::real), expr(frame, b.right).range);
    return Term::scalar(b.op == TokenKind::star_star ? power(left, right)
                                                     : building_.module.apply(*row.on_float, {left, right}));
  }
  return {};
}

// A small whole power is a product, which is exact enough for a mask; every other one is pow().
NodeId ExpressionChecker::power(NodeId base, NodeId exponent) {
  const auto value = building_.module.constant_value(exponent);
  if (!value || !(value->f == 1 || value->f == 2 || value->f == 3 || value->f == 4))
    return building_.module.apply(Op::pow_f, {base, exponent});
  if (value->f == 1) return base;
  const NodeId square = building_.module.apply(Op::mul_f, {base, base});
  if (value->f == 2) return square;
  return building_.module.apply(Op::mul_f, {square, value->f == 3 ? base : square});
}

Term ExpressionChecker::comparison(Frame& frame, const ast::Comparison& c, Range) {
  std::vector<NodeId> operands;
  bool valid = true;
  for (ExprId id : c.operands) {
    operands.push_back(scalar(frame, id));
    valid = valid && operands.back().valid();
  }
  if (!valid) return {};
  NodeId result;
  for (std::size_t i = 0; i < c.ops.size(); ++i) {
    NodeId left = operands[i], right = operands[i + 1];
    const TokenKind token = c.ops[i];
    const bool equality = token == TokenKind::equal || token == TokenKind::not_equal;
    const bool bools = type(left) == Type::boolean && type(right) == Type::boolean;
    if ((type(left) == Type::boolean || type(right) == Type::boolean) && !(bools && equality)) {
      const ExprId culprit = type(left) == Type::boolean ? c.operands[i] : c.operands[i + 1];
      sink_
          .report(Kind::type_mismatch, expr(frame, culprit).range,
                  fmt::format("an operand of `{}`", spelling(token)), "a number", "a bool")
          .with_help(equality ? "compare bools with bools: `x == true`, or just `x`"
                              : "turn a bool into a number with `int(...)`");
      return {};
    }
    const bool ints = type(left) == Type::integer && type(right) == Type::integer;
    if (!bools && !ints)
      left = note(convert(left, Type::real), expr(frame, c.operands[i]).range),
      right = note(convert(right, Type::real), expr(frame, c.operands[i + 1]).range);
    // > and >= are < and <= with their sides changed.
    if (token == TokenKind::greater || token == TokenKind::greater_equal) std::swap(left, right);
    const auto pick = [&](Op b, Op n, Op f) { return bools ? b : ints ? n : f; };
    Op op;
    if (token == TokenKind::equal)
      op = pick(Op::eq_b, Op::eq_i, Op::eq_f);
    else if (token == TokenKind::not_equal)
      op = pick(Op::ne_b, Op::ne_i, Op::ne_f);
    else if (token == TokenKind::less || token == TokenKind::greater)
      op = ints ? Op::lt_i : Op::lt_f;
    else
      op = ints ? Op::le_i : Op::le_f;
    const NodeId link = building_.module.apply(op, {left, right});
    result = result.valid() ? building_.module.apply(Op::and_b, {result, link}) : link;
  }
  return Term::scalar(result);
}

Term ExpressionChecker::conditional(Frame& frame, const ast::Conditional& c, Range range) {
  const NodeId condition = typed(frame, c.condition, Type::boolean, "the condition");
  NodeId then = under(assume(condition, true), [&] { return scalar(frame, c.then); });
  NodeId otherwise = under(assume(condition, false), [&] { return scalar(frame, c.otherwise); });
  if (!condition.valid() || !then.valid() || !otherwise.valid()) return {};
  if (type(then) != type(otherwise)) {
    if (type(then) == Type::boolean || type(otherwise) == Type::boolean) {
      sink_.report(Kind::type_mismatch, range, "the choices of an `if`", "of one type",
                   fmt::format("{} or {}", describe(type(then)), describe(type(otherwise))));
      return {};
    }
    then = note(convert(then, Type::real), expr(frame, c.then).range);
    otherwise = note(convert(otherwise, Type::real), expr(frame, c.otherwise).range);
  }
  const Op op = type(then) == Type::integer ? Op::select_i
                : type(then) == Type::real  ? Op::select_f
                                            : Op::select_b;
  return Term::scalar(building_.module.apply(op, {condition, then, otherwise}));
}

}  // namespace vicinal::check
