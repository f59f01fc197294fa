#include "compiler/check/expressions.h"

#include <fmt/format.h>

#include <cmath>

#include "compiler/check/builtins.h"
#include "compiler/check/foreign_names.h"
#include "compiler/ir/evaluate.h"
#include "compiler/support/match.h"
#include "compiler/support/text.h"

namespace vicinal::check {

using diagnostics::Kind;
using ir::Op;
using ir::SymbolKind;
using ir::Type;
using syntax::TokenKind;

namespace {

// A spec that is small can still ask for endless expansion: functions that call others twice each, say.
constexpr std::size_t kMaxSteps = 2'000'000;
// Of expressions inside expressions, through the bodies of functions: bounds the stack.
constexpr int kMaxDepth = 640;

std::string count(std::size_t n, std::string_view what) {
  if (what == "index") return fmt::format("{} {}", n, n == 1 ? "index" : "indices");
  return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
}

// Names that the language gives to a block, without those that need an index.
bool has_plain_name(const ir::SymbolInfo& symbol) {
  return symbol.name.find('.') == std::string_view::npos;
}

}  // namespace

std::string describe(Type type) {
  return type == Type::integer ? "an int" : type == Type::real ? "a float" : "a bool";
}

std::optional<Type> scalar_type(std::string_view name) {
  for (Type t : {Type::integer, Type::real, Type::boolean})
    if (ir::name_of(t) == name) return t;
  return std::nullopt;
}

NodeId ExpressionChecker::note(NodeId node, Range range) {
  if (node.value >= building_.origins.size()) building_.origins.resize(node.value + 1, range);
  return node;
}

std::uint8_t ExpressionChecker::variance_of(NodeId node) {
  if (node.value >= building_.variance.size()) building_.variance = ir::variance(building_.module);
  return building_.variance[node.value];
}

bool ExpressionChecker::over_limits(Range range) {
  const bool steps = ++steps_ > kMaxSteps;
  const bool nodes = building_.module.size() - building_.unrolled_nodes > kMaxNodes && !building_.unrolling;
  const bool unrolled = building_.module.size() > kMaxUnrolledNodes;
  if (!steps && !nodes && !unrolled) return false;
  if (!limit_reported_) {
    limit_reported_ = true;
    if (unrolled)
      sink_.report(Kind::too_large, range, kMaxUnrolledNodes, "IR nodes after unrolling");
    else if (nodes)
      sink_.report(Kind::too_large, range, kMaxNodes, "IR nodes");
    else
      sink_.report(Kind::too_large, range, kMaxSteps, "expressions after the expansion of functions");
  }
  return true;
}

NodeId ExpressionChecker::convert(NodeId node, Type wanted) {
  if (type(node) == wanted) return node;
  if (const auto value = building_.module.constant_value(node))
    return building_.module.constant(static_cast<float>(value->i));
  return building_.module.apply(Op::float_i, {node});
}

NodeId ExpressionChecker::scalar(Frame& frame, ExprId id, std::string_view what) {
  const Term term = check(frame, id);
  const Range range = expr(frame, id).range;
  switch (term.kind) {
    case Term::Kind::invalid: return {};
    case Term::Kind::scalar: return term.node;
    case Term::Kind::tensor:
      sink_.report(Kind::tensor_as_value, range, program_.sources.text(range))
          .with_help(fmt::format("write `{}[...]` with {}", program_.sources.text(range),
                                 count(building_.module.inputs[term.input].dims.size(), "index")));
      return {};
    case Term::Kind::slice: sink_.report(Kind::slice_outside_dot, range); return {};
    case Term::Kind::function:
      sink_.report(Kind::function_as_value, range, program_.sources.text(range))
          .with_help("call it with its arguments in parentheses");
      return {};
  }
  (void)what;
  return {};
}

NodeId ExpressionChecker::typed(Frame& frame, ExprId id, Type wanted, std::string_view what) {
  const NodeId node = scalar(frame, id, what);
  if (!node.valid() || type(node) == wanted) return node;
  if (wanted == Type::real && type(node) == Type::integer)
    return note(convert(node, wanted), expr(frame, id).range);
  const Range range = expr(frame, id).range;
  auto& d = sink_.report(Kind::type_mismatch, range, what, describe(wanted), describe(type(node)));
  const std::string_view text = program_.sources.text(range);
  if (wanted == Type::boolean)
    d.with_help(fmt::format("compare it: `{} != 0`, say", text));
  else if (wanted == Type::integer && type(node) == Type::real)
    d.with_help(fmt::format("round it: `int({})`, or use `//` to divide ints", text));
  else
    d.with_help(fmt::format("write `{}({})`", ir::name_of(wanted), text));
  return {};
}

std::optional<ir::Value> ExpressionChecker::evaluate(NodeId node) const {
  return ir::evaluate(building_.module, node, [&](const ir::Symbol& s) -> std::optional<ir::Value> {
    if (s.kind != SymbolKind::param || building_.module.params[s.index].dynamic) return std::nullopt;
    return building_.module.params[s.index].value;
  });
}

std::optional<std::int32_t> ExpressionChecker::constant_int(Frame& frame, ExprId id, std::string_view what) {
  const NodeId node = typed(frame, id, Type::integer, what);
  if (!node.valid()) return std::nullopt;
  if (const auto value = evaluate(node)) return value->i;
  if (!building_.by_itself)
    sink_.report(Kind::not_constant, expr(frame, id).range, what)
        .with_help("use literals and params; a param that is --dynamic or learnable is not constant");
  return std::nullopt;
}

Term ExpressionChecker::check(Frame& frame, ExprId id) {
  const ast::Expr& e = expr(frame, id);
  const Range range = e.range;
  if (over_limits(range)) return {};
  if (++depth_ > kMaxDepth) {
    --depth_;
    sink_.report(Kind::nesting_too_deep, range, kMaxDepth);
    return {};
  }
  Term term = support::match(
      e.what, [&](const ast::Name& n) { return name(frame, n, range); },
      [&](const ast::Integer& i) {
        if (i.value == 2147483648u) {
          sink_.report(Kind::number_too_large, range, program_.sources.text(range))
              .with_help("integers are 32-bit, up to 2147483647; write a float with a dot, such as `3e9`");
          return Term{};
        }
        return Term::scalar(building_.module.constant(static_cast<std::int32_t>(i.value)));
      },
      [&](const ast::Real& r) {
        return Term::scalar(building_.module.constant(static_cast<float>(r.value)));
      },
      [&](const ast::Boolean& b) { return Term::scalar(building_.module.constant(b.value)); },
      [&](const ast::Field& f) { return field(frame, f, range); },
      [&](const ast::Unary& u) { return unary(frame, u, range); },
      [&](const ast::Binary& b) { return binary(frame, b, range); },
      [&](const ast::Comparison& c) { return comparison(frame, c, range); },
      [&](const ast::Conditional& c) { return conditional(frame, c, range); },
      [&](const ast::Call& c) { return call(frame, c, range); },
      [&](const ast::Index& i) { return index(frame, i, range); },
      [&](const ast::Slice&) {
        sink_.report(Kind::slice_outside_dot, range);
        return Term{};
      },
      [&](const ast::Reduction& r) { return reduction(frame, r, range); },
      [](const ast::Invalid&) { return Term{}; });
  --depth_;
  if (term.kind == Term::Kind::scalar) note(term.node, range);
  return term;
}

// Names.

Term ExpressionChecker::name(Frame& frame, const ast::Name& n, Range range) {
  if (const auto it = frame.names.find(n.text); it != frame.names.end()) {
    frame.used.insert(n.text);
    if (building_.context_key != ContextKey::no) {
      for (const Term::Unguarded& read : it->second.unguarded) {
        if (building_.let_reads != nullptr)
          building_.let_reads->push_back(read);
        else
          sink_.report(Kind::unguarded_context, read.range, read.what)
              .label(range, "used here, where the key may be a context key")
              .with_help(fmt::format("guard one of the two: `0 if k.context else {}`, say", n.text));
      }
    }
    return it->second;
  }
  if (frame.block) {
    if (Term term = language_name(frame, n.text, range); term.valid()) return term;
  }
  if (n.text == "inf") return Term::scalar(building_.module.constant(std::numeric_limits<float>::infinity()));
  if (n.text == "pi") return Term::scalar(building_.module.constant(3.14159265358979323846f));
  if (const auto f = program_.visible[frame.file].find(n.text); f != program_.visible[frame.file].end()) {
    Term term;
    term.kind = Term::Kind::function;
    term.function = f->second;
    return term;
  }
  unknown_name(frame, n.text, range);
  return {};
}

Term ExpressionChecker::language_name(Frame& frame, std::string_view text, Range) {
  for (const ir::SymbolInfo& symbol : ir::all_symbols()) {
    if (!has_plain_name(symbol) || symbol.name != text) continue;
    if (frame.declaring_dims && symbol.varies != ir::kLaunch) return {};
    return Term::scalar(building_.module.symbol(symbol.kind));
  }
  for (std::uint32_t i = 0; i < building_.module.extents.size(); ++i)
    if (building_.module.extents[i] == text)
      return Term::scalar(building_.module.symbol(SymbolKind::named_extent, i));
  return {};
}

void ExpressionChecker::suggest(diagnostics::Diagnostic& d, const Frame& frame, std::string_view text,
                                Range range, std::span<const std::string_view> more) const {
  std::vector<std::string_view> candidates(more.begin(), more.end());
  for (const auto& [known, term] : frame.names) candidates.push_back(known);
  for (const auto& [known, function] : program_.visible[frame.file]) candidates.push_back(known);
  for (const Builtin& builtin : builtins()) candidates.push_back(builtin.name);
  if (frame.block)
    for (const ir::SymbolInfo& symbol : ir::all_symbols())
      if (has_plain_name(symbol)) candidates.push_back(symbol.name);
  if (const std::string_view near = support::nearest(text, candidates); !near.empty())
    d.fix(range, std::string(near));
}

void ExpressionChecker::unknown_name(Frame& frame, std::string_view text, Range range) {
  const ForeignName* foreign = find_foreign_name(text);
  if (foreign != nullptr && !(foreign->meant.size() == 1 && !frame.block)) {
    auto& d = sink_.report(Kind::foreign_name, range, text);
    if (!foreign->advice.empty()) d.with_help(std::string(foreign->advice));
    if (!foreign->meant.empty()) d.fix(range, std::string(foreign->meant));
    return;
  }
  if (text == "dropout") {
    sink_.report(Kind::unsupported, range, "dropout")
        .with_help("drop weights outside, or leave it out: nothing here is random");
    return;
  }
  auto& d = sink_.report(Kind::unknown_name, range, text);
  for (const ir::SymbolInfo& symbol : ir::all_symbols()) {
    if (has_plain_name(symbol) && symbol.name == text && !frame.block)
      return void(
          d.with_help(fmt::format("a function sees only its parameters: pass `{}` as an argument", text)));
    if (has_plain_name(symbol) && symbol.name == text && frame.declaring_dims)
      return void(d.with_help("a dimension is made of extents, params and constants"));
  }
  if (find_builtin(text) != nullptr || is_special_function(text))
    return void(d.with_help(
        fmt::format("`{}` is a builtin function: call it with its arguments in parentheses", text)));
  if (text == "i" || text == "j") return void(d.with_help("the query's position is `q`, the key's is `k`"));
  d.at("not a param, input, let, axis or builtin");
  suggest(d, frame, text, range);
  for (const diagnostics::FixIt& fix : d.fixes) {
    if (const auto it = frame.names.find(fix.text);
        it != frame.names.end() && it->second.kind == Term::Kind::scalar &&
        it->second.node.value < building_.origins.size() && frame.block)
      d.label(building_.origins[it->second.node.value], "similar name declared here");
  }
}

Term ExpressionChecker::field(Frame& frame, const ast::Field& f, Range range) {
  const auto* base = std::get_if<ast::Name>(&expr(frame, f.base).what);
  if (base == nullptr) {
    sink_.report(Kind::unknown_field, range, program_.sources.text(expr(frame, f.base).range), f.field.text)
        .with_help("only `q` and `k` have fields");
    return {};
  }
  if (is_foreign_module(base->text)) {
    auto& d = sink_.report(Kind::foreign_name, range, fmt::format("{}.{}", base->text, f.field.text));
    const ForeignName* foreign = find_foreign_name(f.field.text);
    if (foreign != nullptr && !foreign->advice.empty())
      d.with_help(std::string(foreign->advice));
    else if (foreign != nullptr)
      d.fix(range, std::string(foreign->meant));
    else if (find_builtin(f.field.text) != nullptr || is_special_function(f.field.text) ||
             f.field.text == "inf" || f.field.text == "pi")
      d.fix(range, f.field.text);
    else
      d.with_help("specs use builtins only; see specs/LANGUAGE.md for their list");
    return {};
  }
  const bool query = base->text == "q";
  if (!query && base->text != "k") {
    auto& d = sink_.report(Kind::unknown_field, range, base->text, f.field.text)
                  .with_help("only `q` and `k` have fields");
    (void)d;
    return {};
  }
  if (!frame.block || frame.declaring_dims) {
    unknown_name(frame, base->text, expr(frame, f.base).range);
    return {};
  }
  if (query && f.field.text == "index") return Term::scalar(building_.module.symbol(SymbolKind::q_index));
  if (!query && f.field.text == "context") {
    if (!building_.module.context) {
      sink_.report(Kind::no_context, range)
          .with_help("add the statement `context` to the block, or leave the test out");
      return {};
    }
    if (building_.context_key != ContextKey::unknown)
      return Term::scalar(building_.module.constant(building_.context_key == ContextKey::yes));
    return Term::scalar(building_.module.symbol(SymbolKind::k_context));
  }
  for (std::uint32_t a = 0; a < building_.module.axes.size(); ++a) {
    if (building_.module.axes[a].name != f.field.text) continue;
    if (!query) require_grid_key(range, fmt::format("coordinate `k.{}`", f.field.text));
    return Term::scalar(building_.module.symbol(query ? SymbolKind::q_axis : SymbolKind::k_axis, a));
  }
  auto& d = sink_.report(Kind::unknown_field, f.field.range, base->text, f.field.text);
  std::vector<std::string_view> fields = {query ? std::string_view("index") : std::string_view("context")};
  for (const ir::Axis& axis : building_.module.axes) fields.push_back(axis.name);
  if (const std::string_view near = support::nearest(f.field.text, fields); !near.empty())
    d.fix(f.field.range, std::string(near));
  else if (f.field.text == "context")
    d.with_help("only keys can be context: `k.context`");
  else if (building_.module.axes.empty())
    d.with_help(fmt::format("declare it first: `axis {} {{ window = ... }}`", f.field.text));
  return {};
}

// What is known of k.context.

void ExpressionChecker::require_grid_key(Range range, std::string what) {
  if (!building_.module.context || building_.context_key == ContextKey::no) return;
  if (building_.let_reads != nullptr) return building_.let_reads->push_back({range, std::move(what)});
  sink_.report(Kind::unguarded_context, range, what)
      .with_help(
          "say what holds for context keys: `0 if k.context else ...` in a score, `k.context or ...` in a "
          "mask");
}

ExpressionChecker::ContextKey ExpressionChecker::assume(const Frame& frame, ExprId id, bool holds) const {
  const ast::Expr& e = expr(frame, id);
  if (const auto* f = std::get_if<ast::Field>(&e.what)) {
    const auto* base = std::get_if<ast::Name>(&expr(frame, f->base).what);
    if (frame.block && base != nullptr && base->text == "k" && f->field.text == "context")
      return holds ? ContextKey::yes : ContextKey::no;
  } else if (const auto* u = std::get_if<ast::Unary>(&e.what); u != nullptr && u->op == TokenKind::kw_not) {
    return assume(frame, u->operand, !holds);
  } else if (const auto* b = std::get_if<ast::Binary>(&e.what);
             b != nullptr && (b->op == TokenKind::kw_and || b->op == TokenKind::kw_or)) {
    const ContextKey left = assume(frame, b->left, holds), right = assume(frame, b->right, holds);
    if (left == right) return left;
    // Both sides hold (`and` true, `or` false): either one's fact will do.
    if ((b->op == TokenKind::kw_and) == holds) return left == ContextKey::unknown ? right : left;
  }
  return ContextKey::unknown;
}

template <class F>
auto ExpressionChecker::under(ContextKey fact, F f) {
  const ContextKey before = building_.context_key;
  if (fact != ContextKey::unknown) building_.context_key = fact;
  auto result = f();
  building_.context_key = before;
  return result;
}

// Operators.

Term ExpressionChecker::unary(Frame& frame, const ast::Unary& u, Range range) {
  if (u.op == TokenKind::kw_not) {
    const NodeId operand = typed(frame, u.operand, Type::boolean, "the operand of `not`");
    return operand.valid() ? Term::scalar(building_.module.apply(Op::not_b, {operand})) : Term{};
  }
  if (const auto* literal = std::get_if<ast::Integer>(&expr(frame, u.operand).what);
      literal != nullptr && u.op == TokenKind::minus && literal->value == 2147483648u)
    return Term::scalar(building_.module.constant(std::numeric_limits<std::int32_t>::min()));
  const NodeId operand = scalar(frame, u.operand, "an operand");
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
      under(assume(frame, b.left, conjunction), [&] { return typed(frame, b.right, Type::boolean, what); });
  if (!left.valid() || !right.valid()) return {};
  return Term::scalar(building_.module.apply(conjunction ? Op::and_b : Op::or_b, {left, right}));
}

Term ExpressionChecker::binary(Frame& frame, const ast::Binary& b, Range range) {
  if (b.op == TokenKind::kw_and || b.op == TokenKind::kw_or) return logical(frame, b, range);
  NodeId left = scalar(frame, b.left, "an operand"), right = scalar(frame, b.right, "an operand");
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
    operands.push_back(scalar(frame, id, "an operand"));
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
  NodeId then = under(assume(frame, c.condition, true), [&] { return scalar(frame, c.then, "a choice"); });
  NodeId otherwise =
      under(assume(frame, c.condition, false), [&] { return scalar(frame, c.otherwise, "a choice"); });
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

// Inputs.

bool ExpressionChecker::reads_key_position(NodeId node) {
  std::vector<bool>& reads = building_.reads_key;
  for (std::size_t n = reads.size(); n <= node.value; ++n) {
    const ir::Node& current = building_.module.nodes()[n];
    const auto* symbol = std::get_if<ir::Symbol>(&current.what);
    bool key = symbol != nullptr && symbol->kind == SymbolKind::k;
    for (NodeId id : current.operands) key = key || reads[id.value];
    reads.push_back(key);
  }
  return reads[node.value];
}

Term ExpressionChecker::index(Frame& frame, const ast::Index& i, Range range) {
  const Term base = check(frame, i.base);
  if (!base.valid()) return {};
  if (base.kind == Term::Kind::slice) {
    sink_.report(Kind::slice_outside_dot, range);
    return {};
  }
  if (base.kind != Term::Kind::tensor) {
    auto& d = sink_.report(Kind::not_indexable, expr(frame, i.base).range);
    if (std::holds_alternative<ast::Index>(expr(frame, i.base).what))
      d.with_help("write all indices in one pair of brackets: x[i, j]");
    return {};
  }
  const std::size_t rank = building_.module.inputs[base.input].dims.size();
  const std::string_view text = program_.sources.text(expr(frame, i.base).range);
  if (i.indices.size() != rank) {
    sink_.report(Kind::wrong_rank, range, text, count(rank, "dimension"),
                 fmt::format("{} {}", i.indices.size(), i.indices.size() == 1 ? "index is" : "indices are"));
    return {};
  }
  Term slice;
  slice.kind = Term::Kind::slice;
  slice.input = base.input;
  bool valid = true;
  for (std::size_t n = 0; n < rank; ++n) {
    const bool colon = std::holds_alternative<ast::Slice>(expr(frame, i.indices[n]).what);
    if (colon && n + 1 == rank) return slice;
    const NodeId id = typed(frame, i.indices[n], Type::integer, fmt::format("an index of `{}`", text));
    valid = valid && id.valid();
    if (!id.valid()) continue;
    slice.indices.push_back(id);
    // `k` counts the context's tokens where the key is known to be one of them.
    if (building_.module.context && building_.context_key != ContextKey::yes && reads_key_position(id))
      require_grid_key(expr(frame, i.indices[n]).range, fmt::format("element of `{}`", text));
  }
  if (!valid) return {};
  return Term::scalar(
      building_.module.load(base.input, ir::Operands(std::span<const NodeId>(slice.indices))));
}

Term ExpressionChecker::dot(Frame& frame, const ast::Call& c, Range range) {
  Term operands[2];
  for (std::size_t n = 0; n < 2; ++n) {
    operands[n] = check(frame, c.arguments[n]);
    if (!operands[n].valid()) return {};
    const Range at = expr(frame, c.arguments[n]).range;
    if (operands[n].kind != Term::Kind::slice) {
      sink_.report(Kind::type_mismatch, at, "an operand of `dot`", "a row of an input", "something else")
          .with_help("write `:` as its last index: dot(x[b, q, :], y[b, k, :])");
      return {};
    }
    if (building_.module.inputs[operands[n].input].type != Type::real) {
      sink_.report(Kind::type_mismatch, at, "an operand of `dot`", "float",
                   describe(building_.module.inputs[operands[n].input].type));
      return {};
    }
  }
  const auto last = [&](const Term& t) { return building_.module.inputs[t.input].dims.back(); };
  const auto first_length = evaluate(last(operands[0])), second_length = evaluate(last(operands[1]));
  if (!building_.by_itself && first_length && second_length && first_length->i != second_length->i) {
    sink_.report(Kind::dot_mismatch, range, first_length->i, second_length->i);
    return {};
  }
  return Term::scalar(
      building_.module.dot(operands[0].input, operands[1].input, operands[0].indices, operands[1].indices));
}

// Loops.

Term ExpressionChecker::reduction(Frame& frame, const ast::Reduction& r, Range range) {
  const std::string_view word = r.any ? "any" : "sum";
  const auto begin = constant_int(frame, r.begin, fmt::format("the first bound of `{}`", word));
  const auto end = constant_int(frame, r.end, fmt::format("the last bound of `{}`", word));
  if (!building_.by_itself && (!begin || !end)) return {};
  const auto shadowed = frame.names.find(r.variable.text);
  const std::optional<Term> before =
      shadowed == frame.names.end() ? std::nullopt : std::optional(shadowed->second);

  const std::size_t size_before = building_.module.size();
  const bool outermost = !building_.unrolling;
  building_.unrolling = true;
  NodeId result;
  bool valid = true;
  // Checked by itself, a function's bounds may be unknown: one round shows every mistake.
  const std::int64_t first = begin.value_or(0), last = begin && end ? *end : first + 1;
  for (std::int64_t i = first; i < last && valid; ++i) {
    const NodeId variable =
        begin && end ? building_.module.constant(static_cast<std::int32_t>(i))
                     : building_.module.add(
                           {ir::Symbol{SymbolKind::argument, building_.placeholders++}, Type::integer, {}});
    frame.names[r.variable.text] = Term::scalar(note(variable, r.variable.range));
    NodeId element = scalar(frame, r.body, "the body");
    valid = element.valid();
    if (!valid) break;
    if (r.any != (type(element) == Type::boolean)) {
      sink_
          .report(Kind::type_mismatch, expr(frame, r.body).range, fmt::format("the body of `{}`", word),
                  r.any ? "a bool" : "a number", describe(type(element)))
          .with_help(r.any ? "`any` joins conditions; `sum` adds numbers"
                           : "`sum` adds numbers; `any` joins conditions");
      valid = false;
      break;
    }
    if (result.valid()) {
      if (type(result) != type(element))
        result = convert(result, Type::real), element = convert(element, Type::real);
      element = building_.module.apply(r.any                            ? Op::or_b
                                       : type(element) == Type::integer ? Op::add_i
                                                                        : Op::add_f,
                                       {result, element});
    }
    result = note(element, range);
    valid = !over_limits(range);
  }
  if (outermost)
    building_.unrolling = false, building_.unrolled_nodes += building_.module.size() - size_before;
  if (before)
    frame.names[r.variable.text] = *before;
  else
    frame.names.erase(r.variable.text);
  if (!valid) return {};
  if (result.valid()) return Term::scalar(result);
  // An empty range: nothing holds, and the sum is zero.
  return Term::scalar(r.any ? building_.module.constant(false) : building_.module.constant(0));
}

}  // namespace vicinal::check
