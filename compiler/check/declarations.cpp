// Axes, params and inputs: the names that a block gives, and what they stand for.
#include <fmt/format.h>

#include "compiler/check/block.h"
#include "compiler/check/builtins.h"
#include "compiler/ir/evaluate.h"
#include "compiler/support/text.h"

namespace vicinal::check {

using diagnostics::Kind;
using ir::SymbolKind;
using ir::Type;

namespace {

constexpr std::size_t kMaxAxes = 8;

}  // namespace

bool BlockChecker::introduce(const ast::Identifier& name) {
  const auto known = taken_.find(name.text);
  bool language = find_builtin(name.text) != nullptr || is_special_function(name.text) ||
                  name.text == "inf" || name.text == "pi";
  for (const ir::SymbolInfo& symbol : ir::all_symbols()) language = language || symbol.name == name.text;
  for (std::string_view target : kTargets) language = language || target == name.text;
  const auto function = program_.visible[frame_.file].find(name.text);
  if (known == taken_.end() && !language && function == program_.visible[frame_.file].end()) {
    taken_.emplace(name.text, name.range);
    return true;
  }
  auto& d = sink_.report(Kind::duplicate_definition, name.range, name.text);
  if (known != taken_.end())
    d.label(known->second, "first defined here");
  else if (language)
    d.with_help("the language gives this name a meaning; choose another one");
  else
    d.label(program_.function(function->second).name.range, "a function of this name");
  return false;
}

void BlockChecker::declare_axis(const ast::Axis& axis) {
  introduce(axis.name);
  for (std::string_view reserved : {"context", "index"})
    if (axis.name.text == reserved)
      sink_.report(Kind::duplicate_definition, axis.name.range, axis.name.text)
          .with_help("`k.context` and `q.index` have a meaning of their own; choose another name");
  ir::Axis& a = module_.axes.emplace_back();
  a.name = axis.name.text;
  axis_ranges_.push_back(axis.name.range);
  if (module_.axes.size() == kMaxAxes + 1) sink_.report(Kind::too_large, axis.name.range, kMaxAxes, "axes");
}

void BlockChecker::axis_properties(const ast::Axis& axis) {
  ir::Axis* a = nullptr;
  for (ir::Axis& candidate : module_.axes)
    if (candidate.name == axis.name.text) a = &candidate;
  std::set<std::string> seen;
  for (const ast::Property& p : axis.properties) {
    if (!seen.insert(p.name.text).second) {
      sink_.report(Kind::duplicate_assignment, p.name.range, p.name.text);
      continue;
    }
    if (p.name.text == "causal")
      causal(*a, p);
    else if (p.name.text == "window")
      a->window = axis_value(p, "window", true);
    else if (p.name.text == "dilation")
      a->dilation = axis_value(p, "dilation", false);
    else if (p.name.text == "stride")
      a->stride = axis_value(p, "stride", true);
    else
      unknown_property(p);
  }
  const auto window = known_int(a->window), stride = known_int(a->stride);
  if (window && stride && *stride > *window)
    sink_.report(Kind::bad_value, axis.name.range, fmt::format("the stride of `{}`", a->name),
                 fmt::format("at most the window, {}", *window), fmt::format("{}", *stride));
}

std::optional<std::int32_t> BlockChecker::known_int(ir::NodeId id) const {
  const auto value = id.valid() ? evaluate(id) : std::nullopt;
  return value ? std::optional(value->i) : std::nullopt;
}

void BlockChecker::unknown_property(const ast::Property& p) {
  auto& d = sink_.report(Kind::unknown_property, p.name.range, p.name.text);
  constexpr std::string_view known[] = {"window", "dilation", "stride", "causal"};
  if (p.name.text == "kernel_size" || p.name.text == "kernel" || p.name.text == "size")
    d.fix(p.name.range, "window");
  else if (p.name.text == "is_causal")
    d.fix(p.name.range, "causal");
  else if (const auto near = support::nearest(p.name.text, known); !near.empty())
    d.fix(p.name.range, std::string(near));
  else
    d.with_help("an axis takes `window`, `dilation`, `stride` and `causal`");
}

void BlockChecker::causal(ir::Axis& a, const ast::Property& p) {
  a.causal = true;
  if (!p.value.valid()) return;
  const ir::NodeId node = typed(frame_, p.value, Type::boolean, "`causal`");
  if (!node.valid()) return;
  if (const auto value = evaluate(node))
    a.causal = value->b;
  else
    sink_.report(Kind::not_constant, expr(frame_, p.value).range, "`causal`");
}

ir::NodeId BlockChecker::axis_value(const ast::Property& p, std::string_view what, bool may_be_dynamic) {
  const std::string quoted = fmt::format("`{}`", what);
  if (!p.value.valid()) {
    sink_.report(Kind::expected, p.name.range, fmt::format("`{} = ...`", what),
                 fmt::format("`{}` alone", what));
    return {};
  }
  const ir::NodeId node = typed(frame_, p.value, Type::integer, quoted);
  if (!node.valid()) return {};
  const Range range = expr(frame_, p.value).range;
  if (const auto value = evaluate(node)) {
    if (value->i >= 1) return node;
    sink_.report(Kind::bad_value, range, quoted, "at least 1", fmt::format("{}", value->i))
        .with_help(what == "window" ? "leave `window` out to see the whole axis" : "leave it out for 1");
    return {};
  }
  if (may_be_dynamic && launch_scalar(node)) return node;
  auto& d = sink_.report(Kind::not_constant, range, quoted);
  d.with_help(may_be_dynamic ? "use literals and params"
                             : "a dynamic param may feed `window` and `stride`, not `dilation`");
  return {};
}

bool BlockChecker::launch_scalar(ir::NodeId node) const {
  return ir::evaluate(module_, node,
                      [&](const ir::Symbol& s) -> std::optional<ir::Value> {
                        if (s.kind == SymbolKind::param) return module_.params[s.index].value;
                        return std::nullopt;
                      })
      .has_value();
}

void BlockChecker::declare_param(const ast::Param& param) {
  const bool fresh = introduce(param.name);
  const auto type = scalar_type(param.type);
  if (!type) {
    auto& d = sink_.report(Kind::unknown_type, param.type_range, param.type);
    constexpr std::string_view types[] = {"int", "float", "bool"};
    if (const auto near = support::nearest(param.type, types); !near.empty())
      d.fix(param.type_range, std::string(near));
    else
      d.with_help("types are int, float and bool");
  }
  if (param.learnable && type && *type != Type::real) sink_.report(Kind::not_learnable, param.name.range);
  const std::string what = fmt::format("the value of `{}`", param.name.text);
  const ir::NodeId node = type ? typed(frame_, param.value, *type, what) : scalar(frame_, param.value);
  if (!type || !node.valid() || !fresh) return poison(param.name);
  const auto value = evaluate(node);
  if (!value) {
    sink_.report(Kind::not_constant, expr(frame_, param.value).range,
                 fmt::format("the value of `{}`", param.name.text));
    return poison(param.name);
  }
  if (!room_for_declaration(param.name)) return;
  const auto bound = bindings_.values.find(param.name.text);
  module_.params.push_back({param.name.text, *type, bound == bindings_.values.end() ? *value : bound->second,
                            param.learnable, param.learnable || bindings_.dynamic.contains(param.name.text)});
  declare(param.name, Term::scalar(note(module_.symbol(SymbolKind::param,
                                                       static_cast<std::uint32_t>(module_.params.size() - 1)),
                                        param.name.range)));
}

bool BlockChecker::room_for_declaration(const ast::Identifier& name) {
  if (module_.params.size() + module_.inputs.size() < kMaxDeclarations) return true;
  sink_.report(Kind::too_large, name.range, kMaxDeclarations, "inputs and params");
  return false;
}

void BlockChecker::declare(const ast::Identifier& name, Term term) {
  frame_.names[name.text] = std::move(term);
  declared_.emplace_back(name.text, name.range);
}
void BlockChecker::declare_input(const ast::Input& input) {
  const bool fresh = introduce(input.name);
  const auto type = scalar_type(input.type);
  if (!type)
    sink_.report(Kind::unknown_type, input.type_range, input.type)
        .with_help("the elements of an input are int, float or bool");
  if (input.learnable && type && *type != Type::real) sink_.report(Kind::not_learnable, input.name.range);
  if (input.dims.size() > static_cast<std::size_t>(kMaxInputRank))
    sink_.report(Kind::too_large, input.name.range, kMaxInputRank, "dimensions");
  std::vector<ir::NodeId> dims;
  bool valid = type.has_value() && fresh && input.dims.size() <= static_cast<std::size_t>(kMaxInputRank);
  for (ExprId dim : input.dims) {
    dims.push_back(dimension(dim));
    valid = valid && dims.back().valid();
  }
  if (!valid || !room_for_declaration(input.name)) return poison(input.name);
  module_.inputs.push_back({input.name.text, *type, std::move(dims), input.learnable});
  input_ranges_.push_back(input.name.range);
  const auto number = static_cast<std::uint32_t>(module_.inputs.size() - 1);
  if (input.dims.empty())
    return declare(input.name, Term::scalar(note(module_.load(number, {}), input.name.range)));
  Term term;
  term.kind = Term::Kind::tensor;
  term.input = number;
  declare(input.name, std::move(term));
}

// `docs` and `docs + 1` declare an extent where the name is new; everything else is an expression over
// extents, params and constants.
ir::NodeId BlockChecker::dimension(ExprId id) {
  ExprId named = id;
  if (const auto* sum = std::get_if<ast::Binary>(&expr(frame_, id).what);
      sum != nullptr && (sum->op == syntax::TokenKind::plus || sum->op == syntax::TokenKind::minus))
    named = sum->left;
  if (const auto* n = std::get_if<ast::Name>(&expr(frame_, named).what);
      n != nullptr && new_extent(n->text)) {
    taken_.emplace(n->text, expr(frame_, named).range);
    module_.extents.push_back(n->text);
  }
  frame_.declaring_dims = true;
  const ir::NodeId node = typed(frame_, id, Type::integer, "a dimension");
  frame_.declaring_dims = false;
  if (!node.valid()) return {};
  const Range range = expr(frame_, id).range;
  // With one for every extent, only params that are not dynamic are left to be unknown.
  const auto known = ir::evaluate(module_, node, [&](const ir::Symbol& s) -> std::optional<ir::Value> {
    if (s.kind == SymbolKind::param && module_.params[s.index].dynamic) return std::nullopt;
    return s.kind == SymbolKind::param ? module_.params[s.index].value : ir::int_value(1);
  });
  if (!known) {
    sink_.report(Kind::not_constant, range, "a dimension")
        .with_help("a dynamic param cannot feed a dimension; declare an extent by a new name");
    return {};
  }
  if (const auto value = evaluate(node); value && value->i < 0) {
    sink_.report(Kind::bad_value, range, "a dimension", "at least 0", fmt::format("{}", value->i));
    return {};
  }
  return node;
}

bool BlockChecker::new_extent(const std::string& name) const {
  if (taken_.contains(name) || frame_.names.contains(name) || find_builtin(name) != nullptr ||
      is_special_function(name))
    return false;
  if (program_.visible[frame_.file].contains(name) || name == "inf" || name == "pi") return false;
  for (const ir::SymbolInfo& symbol : ir::all_symbols())
    if (symbol.name == name) return false;
  return true;
}

}  // namespace vicinal::check
