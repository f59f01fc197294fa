// Names: what they mean where they stand, and what was meant by those that mean nothing.
#include <fmt/format.h>

#include <limits>

#include "compiler/check/builtins.h"
#include "compiler/check/expressions.h"
#include "compiler/check/foreign_names.h"
#include "compiler/support/text.h"

namespace vicinal::check {

using diagnostics::Kind;
using ir::SymbolKind;
using syntax::TokenKind;

namespace {

// Names that the language gives to a block, without those that need an index.
bool has_plain_name(const ir::SymbolInfo& symbol) {
  return symbol.name.find('.') == std::string_view::npos;
}

}  // namespace

Term ExpressionChecker::name(Frame& frame, const ast::Name& n, Range range) {
  if (const auto it = frame.names.find(n.text); it != frame.names.end()) {
    frame.used.insert(n.text);
    for (const Term::Guarded& read : it->second.guarded) {
      if (guard_holds(read)) continue;
      if (building_.let_reads != nullptr)
        building_.let_reads->push_back(read);
      else
        sink_.report(Kind::unguarded_context, read.range, read.what)
            .label(range, building_.context_key == ContextKey::yes
                              ? "used here, where the key is a context key"
                              : "used here, where the key may be a context key")
            .with_help(fmt::format("guard one of the two: `0 if k.context else {}`, say", n.text));
    }
    return it->second;
  }
  if (frame.block) {
    if (Term term = language_name(frame, n.text); term.valid()) return term;
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

Term ExpressionChecker::language_name(const Frame& frame, std::string_view text) {
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
    sink_.report(Kind::unknown_field, range, base->text, f.field.text)
        .with_help("only `q` and `k` have fields");
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
    if (!query) require_guard({range, fmt::format("coordinate `k.{}`", f.field.text), true});
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

bool ExpressionChecker::guard_holds(const Term::Guarded& read) const {
  return building_.context_key == ContextKey::no ||
         (building_.context_key == ContextKey::yes && !read.coordinate);
}

void ExpressionChecker::require_guard(Term::Guarded read) {
  if (!building_.module.context || guard_holds(read)) return;
  if (building_.let_reads != nullptr) return building_.let_reads->push_back(std::move(read));
  sink_.report(Kind::unguarded_context, read.range, read.what)
      .with_help(
          "say what holds for context keys: `0 if k.context else ...` in a score, `k.context or ...` in a "
          "mask");
}

ExpressionChecker::ContextKey ExpressionChecker::assume(NodeId condition, bool holds) const {
  if (!condition.valid()) return ContextKey::unknown;
  const ir::Node& node = building_.module[condition];
  if (const auto* s = std::get_if<ir::Symbol>(&node.what); s != nullptr && s->kind == SymbolKind::k_context)
    return holds ? ContextKey::yes : ContextKey::no;
  // Where k.context is known it is a constant, and on its other side nothing is ever read.
  if (const auto value = building_.module.constant_value(condition);
      value && value->b != holds && building_.context_key != ContextKey::unknown)
    return ContextKey::no;
  const auto* apply = std::get_if<ir::Apply>(&node.what);
  if (apply == nullptr) return ContextKey::unknown;
  if (apply->op == ir::Op::not_b) return assume(node.operands[0], !holds);
  if (apply->op != ir::Op::and_b && apply->op != ir::Op::or_b) return ContextKey::unknown;
  const ContextKey left = assume(node.operands[0], holds), right = assume(node.operands[1], holds);
  if (left == right) return left;
  // Both sides hold (`and` true, `or` false): either one's fact will do.
  if ((apply->op == ir::Op::and_b) == holds) return left == ContextKey::unknown ? right : left;
  return ContextKey::unknown;
}

}  // namespace vicinal::check
