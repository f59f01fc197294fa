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

NodeId ExpressionChecker::scalar(Frame& frame, ExprId id) {
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
  return {};
}

NodeId ExpressionChecker::typed(Frame& frame, ExprId id, Type wanted, std::string_view what) {
  const NodeId node = scalar(frame, id);
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
    if (building_.module.context && reads_key_position(id))
      require_guard({expr(frame, i.indices[n]).range, fmt::format("element of `{}`", text), false});
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
    NodeId element = scalar(frame, r.body);
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
