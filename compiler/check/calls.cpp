#include <fmt/format.h>

#include <utility>

#include "compiler/check/builtins.h"
#include "compiler/check/expressions.h"
#include "compiler/check/foreign_names.h"

namespace vicinal::check {

using diagnostics::Kind;
using ir::Op;
using ir::SymbolKind;
using ir::Type;

Term ExpressionChecker::call(Frame& frame, const ast::Call& c, Range range) {
  const ast::Expr& callee = expr(frame, c.callee);
  if (const auto* n = std::get_if<ast::Name>(&callee.what)) {
    const auto local = frame.names.find(n->text);
    if (local == frame.names.end()) {
      if (is_special_function(n->text)) return call_special(frame, n->text, c, range);
      if (find_builtin(n->text) != nullptr) return call_builtin(frame, n->text, c, range);
    }
    const Term term = check(frame, c.callee);
    if (term.kind == Term::Kind::function) return call_function(frame, term, n->text, c, range);
    if (term.valid()) sink_.report(Kind::not_callable, callee.range);
    // What stands inside still gets checked, so that its mistakes show in the same run.
    for (ExprId id : c.arguments)
      if (!std::holds_alternative<ast::Slice>(expr(frame, id).what)) check(frame, id);
    return {};
  }
  const Term term = check(frame, c.callee);
  if (term.valid())
    sink_.report(Kind::not_callable, callee.range).with_help("a function is called by its name");
  return {};
}

bool ExpressionChecker::argument_count(std::string_view name, std::size_t wanted, bool at_least,
                                       const ast::Call& c, Range range) {
  const std::size_t given = c.arguments.size();
  if (given == wanted || (at_least && given > wanted)) return true;
  sink_.report(Kind::wrong_argument_count, range, name,
               fmt::format("{}{} argument{}", at_least ? "at least " : "", wanted, wanted == 1 ? "" : "s"),
               fmt::format("{} {}", given, given == 1 ? "is" : "are"));
  return false;
}

Term ExpressionChecker::call_builtin(Frame& frame, std::string_view name, const ast::Call& c, Range range) {
  const Builtin& builtin = *find_builtin(name);
  if (!argument_count(name, static_cast<std::size_t>(builtin.arity), builtin.variadic, c, range)) return {};
  std::vector<NodeId> arguments;
  bool ints = true, valid = true;
  for (ExprId id : c.arguments) {
    const NodeId node = scalar(frame, id);
    valid = valid && node.valid();
    if (!node.valid()) continue;
    if (type(node) == Type::boolean) {
      sink_
          .report(Kind::type_mismatch, expr(frame, id).range, fmt::format("an argument of `{}`", name),
                  "a number", "a bool")
          .with_help("turn a bool into a number with `int(...)`");
      valid = false;
    }
    ints = ints && type(node) == Type::integer;
    arguments.push_back(node);
  }
  if (!valid) return {};
  const bool on_int = ints && builtin.on_int.has_value();
  if (!on_int)
    for (std::size_t i = 0; i < arguments.size(); ++i)
      arguments[i] = note(convert(arguments[i], Type::real), expr(frame, c.arguments[i]).range);
  if (builtin.composite != nullptr) return Term::scalar(builtin.composite(building_.module, arguments));
  const Op op = on_int ? *builtin.on_int : *builtin.on_float;
  if (builtin.arity == 1) return Term::scalar(building_.module.apply(op, {arguments[0]}));
  NodeId result = arguments[0];
  for (std::size_t i = 1; i < arguments.size(); ++i)
    result = building_.module.apply(op, {result, arguments[i]});
  return Term::scalar(result);
}

Term ExpressionChecker::call_special(Frame& frame, std::string_view name, const ast::Call& c, Range range) {
  if (name == "sum" || name == "any") {
    sink_.report(Kind::expected, range, fmt::format("`{}(i in a..b: ...)`", name), "an ordinary call")
        .with_help("a reduction runs over a constant range; reductions over tensors are not supported");
    return {};
  }
  if (name == "dot") return argument_count(name, 2, false, c, range) ? dot(frame, c, range) : Term{};
  if (name == "clamp") {
    if (!argument_count(name, 3, false, c, range)) return {};
    NodeId x[3];
    bool ints = true;
    for (std::size_t i = 0; i < 3; ++i) {
      x[i] = scalar(frame, c.arguments[i]);
      if (!x[i].valid()) return {};
      if (type(x[i]) == Type::boolean) {
        sink_.report(Kind::type_mismatch, expr(frame, c.arguments[i]).range, "an argument of `clamp`",
                     "a number", "a bool");
        return {};
      }
      ints = ints && type(x[i]) == Type::integer;
    }
    if (!ints)
      for (NodeId& id : x) id = convert(id, Type::real);
    const NodeId above = building_.module.apply(ints ? Op::max_i : Op::max_f, {x[0], x[1]});
    return Term::scalar(building_.module.apply(ints ? Op::min_i : Op::min_f, {above, x[2]}));
  }
  if (!argument_count(name, 1, false, c, range)) return {};
  if (name == "len") {
    const auto* axis = std::get_if<ast::Name>(&expr(frame, c.arguments[0]).what);
    for (std::uint32_t a = 0; axis != nullptr && frame.block && a < building_.module.axes.size(); ++a)
      if (building_.module.axes[a].name == axis->text)
        return Term::scalar(building_.module.symbol(SymbolKind::axis_length, a));
    sink_
        .report(Kind::type_mismatch, expr(frame, c.arguments[0]).range, "the argument of `len`",
                "an axis of the block", "something else")
        .with_help(
            "`tokens` counts queries, `keys` counts keys; an input's own dimensions have the names it "
            "declares");
    return {};
  }
  const NodeId x = scalar(frame, c.arguments[0]);
  if (!x.valid()) return {};
  const Type from = type(x);
  const Type to = *scalar_type(name);
  if (from == to) return Term::scalar(x);
  if (to == Type::integer)
    return Term::scalar(building_.module.apply(from == Type::real ? Op::int_f : Op::int_b, {x}));
  if (to == Type::boolean)
    return Term::scalar(from == Type::integer
                            ? building_.module.apply(Op::ne_i, {x, building_.module.constant(0)})
                            : building_.module.apply(Op::ne_f, {x, building_.module.constant(0.0f)}));
  return Term::scalar(
      convert(from == Type::boolean ? note(building_.module.apply(Op::int_b, {x}), range) : x, Type::real));
}

// Functions are expanded where they are called: the body is checked again with the arguments' nodes.
Term ExpressionChecker::call_function(Frame& frame, const Term& callee, std::string_view name,
                                      const ast::Call& c, Range range) {
  // A parameter of a function that is checked by itself: only its signature is known.
  if (!callee.function) {
    const ast::TypeExpr& signature = *callee.signature;
    if (!argument_count(name, signature.parameters.size(), false, c, range)) return {};
    for (std::size_t i = 0; i < c.arguments.size(); ++i)
      if (!argument(frame, c.arguments[i], signature.parameters[i], "an argument").valid()) return {};
    return placeholder(signature.result.front());
  }
  const syntax::FunctionRef ref = *callee.function;
  const ast::Function& function = program_.function(ref);
  for (const Frame* f = &frame; f != nullptr; f = f->caller) {
    if (f->function != ref) continue;
    sink_.report(Kind::recursion, range, function.name.text).label(function.name.range, "defined here");
    return {};
  }
  // A function with mistakes of its own has been reported where it stands.
  check_function_by_itself(ref);
  if (sound_[ref] && !argument_count(name, function.parameters.size(), false, c, range)) return {};
  if (c.arguments.size() != function.parameters.size()) return {};
  Frame inner;
  inner.file = ref.file;
  inner.caller = &frame;
  inner.function = ref;
  bool valid = true;
  for (std::size_t i = 0; i < c.arguments.size(); ++i) {
    const ast::Parameter& parameter = function.parameters[i];
    Term term = argument(frame, c.arguments[i], parameter.type, parameter.name.text);
    valid = valid && term.valid();
    inner.names[parameter.name.text] = std::move(term);
  }
  if (!valid || !sound_[ref]) return {};
  // Reads of a let's missing coordinates are the caller's; the body only sees values.
  for (auto& [parameter, term] : inner.names) term.guarded.clear();
  NodeId result = scalar(inner, function.body);
  if (!result.valid()) return {};
  if (function.result) result = convert(result, *scalar_type(function.result->base));
  return Term::scalar(result);
}

Term ExpressionChecker::argument(Frame& frame, ExprId id, const ast::TypeExpr& wanted,
                                 std::string_view parameter) {
  const Range range = expr(frame, id).range;
  const std::string what = fmt::format("`{}`", parameter);
  if (wanted.base != "fn" && !wanted.rank) {
    const auto type = scalar_type(wanted.base);
    if (!type) return {};
    const NodeId node = typed(frame, id, *type, what);
    return node.valid() ? Term::scalar(node) : Term{};
  }
  Term term = check(frame, id);
  if (!term.valid()) return {};
  if (wanted.rank) {
    const auto* input = term.kind == Term::Kind::tensor ? &building_.module.inputs[term.input] : nullptr;
    if (input == nullptr || ir::name_of(input->type) != wanted.base ||
        static_cast<int>(input->dims.size()) != *wanted.rank) {
      sink_.report(Kind::type_mismatch, range, what,
                   fmt::format("an input of type {} and rank {}", wanted.base, *wanted.rank),
                   input == nullptr
                       ? "no input"
                       : fmt::format("{} of rank {}", ir::name_of(input->type), input->dims.size()));
      return {};
    }
    return term;
  }
  if (term.kind != Term::Kind::function) {
    sink_.report(Kind::type_mismatch, range, what, "a function", "a value")
        .with_help("pass a function's name, without parentheses");
    return {};
  }
  // Parameters must match in number and type; the result is compared where it is written down.
  const auto same = [](const ast::TypeExpr& a, const ast::TypeExpr& b) {
    return a.base == b.base && a.rank == b.rank;
  };
  std::vector<const ast::TypeExpr*> given;
  const ast::TypeExpr* result = nullptr;
  if (term.function) {
    const ast::Function& f = program_.function(*term.function);
    for (const ast::Parameter& p : f.parameters) given.push_back(&p.type);
    if (f.result) result = &*f.result;
  } else {
    for (const ast::TypeExpr& p : term.signature->parameters) given.push_back(&p);
    result = &term.signature->result.front();
  }
  bool match =
      given.size() == wanted.parameters.size() && (result == nullptr || same(*result, wanted.result.front()));
  for (std::size_t i = 0; match && i < given.size(); ++i) match = same(*given[i], wanted.parameters[i]);
  if (!match) {
    auto& d = sink_.report(Kind::type_mismatch, range, what,
                           fmt::format("a {}", program_.sources.text(wanted.range)), "another function type");
    if (term.function) d.label(program_.function(*term.function).name.range, "defined here");
    return {};
  }
  return term;
}

Term ExpressionChecker::placeholder(const ast::TypeExpr& type_expr) {
  Term term;
  if (type_expr.base == "fn") {
    term.kind = Term::Kind::function;
    term.signature = &type_expr;
    return term;
  }
  const auto type = scalar_type(type_expr.base);
  if (!type) return {};
  if (!type_expr.rank)
    return Term::scalar(
        building_.module.add({ir::Symbol{SymbolKind::argument, building_.placeholders++}, *type, {}}));
  ir::Input input{"", *type, {}, false};
  for (int i = 0; i < *type_expr.rank; ++i)
    input.dims.push_back(building_.module.add(
        {ir::Symbol{SymbolKind::argument, building_.placeholders++}, Type::integer, {}}));
  building_.module.inputs.push_back(std::move(input));
  term.kind = Term::Kind::tensor;
  term.input = static_cast<std::uint32_t>(building_.module.inputs.size() - 1);
  return term;
}

namespace {

// Types as they are written: reports what is no type.
bool sound_type(const ast::TypeExpr& t, bool parameter, diagnostics::Sink& sink) {
  if (t.base == "fn") {
    if (!parameter) {
      sink.report(Kind::unknown_type, t.range, "fn").with_help("a function returns int, float or bool");
      return false;
    }
    bool sound = sound_type(t.result.front(), false, sink);
    for (const ast::TypeExpr& p : t.parameters) sound = sound_type(p, true, sink) && sound;
    return sound;
  }
  if (!scalar_type(t.base)) {
    auto& d = sink.report(Kind::unknown_type, t.range, t.base);
    if (const ForeignName* f = find_foreign_name(t.base); f != nullptr && scalar_type(f->meant))
      d.fix(t.range, std::string(f->meant));
    else
      d.with_help("types are int, float and bool");
    return false;
  }
  if (t.rank && (!parameter || *t.rank < 1 || *t.rank > kMaxInputRank)) {
    sink.report(Kind::unknown_type, t.range, t.base)
        .with_help(parameter ? fmt::format("an input has 1 to {} dimensions", kMaxInputRank)
                             : "a function returns int, float or bool");
    return false;
  }
  return true;
}

}  // namespace

void ExpressionChecker::check_function_by_itself(syntax::FunctionRef ref) {
  if (sound_.contains(ref)) return;
  sound_[ref] = true;  // calls from inside, which recursion reports, do not come back here
  const ast::Function& function = program_.function(ref);
  const std::size_t errors = sink_.error_count();
  // In a module of its own, so that placeholders do not stay behind.
  Building outer = std::exchange(building_, {});
  building_.by_itself = true;

  Frame frame;
  frame.file = ref.file;
  frame.function = ref;
  bool types = true;
  for (const ast::Parameter& p : function.parameters) {
    types = sound_type(p.type, true, sink_) && types;
    if (frame.names.contains(p.name.text))
      sink_.report(Kind::duplicate_definition, p.name.range, p.name.text);
    frame.names[p.name.text] = types ? placeholder(p.type) : Term{};
  }
  if (function.result) types = sound_type(*function.result, false, sink_) && types;
  const NodeId body = scalar(frame, function.body);
  if (body.valid() && types && function.result) {
    const Type declared = *scalar_type(function.result->base);
    if (type(body) != declared && !(declared == Type::real && type(body) == Type::integer))
      sink_
          .report(Kind::type_mismatch, expr(frame, function.body).range,
                  fmt::format("the result of `{}`", function.name.text), describe(declared),
                  describe(type(body)))
          .label(function.result->range, "declared here");
  }

  const bool sound = sink_.error_count() == errors && body.valid();
  building_ = std::move(outer);
  sound_[ref] = sound;
}

}  // namespace vicinal::check
