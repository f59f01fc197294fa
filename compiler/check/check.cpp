#include "compiler/check/check.h"

#include <fmt/format.h>

#include "compiler/check/builtins.h"
#include "compiler/check/expressions.h"
#include "compiler/ir/evaluate.h"
#include "compiler/support/match.h"
#include "compiler/support/text.h"

namespace vicinal::check {
namespace {

using diagnostics::Kind;
using ir::Root;
using ir::SymbolKind;
using ir::Type;

constexpr std::string_view kTargets[] = {"score", "mask", "scale", "sink",  "normalize",
                                         "query", "key",  "align", "output"};

class BlockChecker : ExpressionChecker {
 public:
  BlockChecker(const syntax::Program& program, const ast::Attention& block, const Bindings& bindings,
               diagnostics::Sink& sink)
      : ExpressionChecker(program, sink), block_(block), bindings_(bindings), module_(building_.module) {
    frame_.file = block.name.range.file;
    frame_.block = true;
    module_.name = block.name.text;
  }

  std::optional<CheckedSpec> run() {
    const std::size_t errors = sink_.error_count();
    // Axes, context and extents can be named before the line that declares them.
    for (const ast::Statement& s : block_.statements) {
      if (const auto* axis = std::get_if<ast::Axis>(&s.what)) declare_axis(*axis);
      if (std::holds_alternative<ast::Context>(s.what)) module_.context = true;
    }
    for (const ast::Statement& s : block_.statements)
      if (const auto* param = std::get_if<ast::Param>(&s.what)) declare_param(*param);
    for (const ast::Statement& s : block_.statements) {
      if (const auto* axis = std::get_if<ast::Axis>(&s.what)) axis_properties(*axis);
      if (const auto* input = std::get_if<ast::Input>(&s.what)) declare_input(*input);
    }
    for (const ast::Statement& s : block_.statements) {
      if (const auto* let = std::get_if<ast::Let>(&s.what)) define(*let);
      if (const auto* assign = std::get_if<ast::Assign>(&s.what)) this->assign(*assign);
    }
    if (sink_.error_count() == errors) whole_block();
    for (const auto& [name, range] : declared_)
      if (!frame_.used.contains(name) && !sink_.has_errors()) sink_.report(Kind::unused_name, range, name);
    if (sink_.error_count() != errors) return std::nullopt;
    building_.origins.resize(module_.size(), block_.name.range);
    return CheckedSpec{std::move(module_), std::move(building_.origins), std::move(axis_ranges_),
                       std::move(input_ranges_)};
  }

 private:
  // A name of the block's own: not taken, and not one that the language gives.
  bool introduce(const ast::Identifier& name) {
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

  // Declarations.

  void declare_axis(const ast::Axis& axis) {
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

  void axis_properties(const ast::Axis& axis) {
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

  std::optional<std::int32_t> known_int(ir::NodeId id) const {
    const auto value = id.valid() ? evaluate(id) : std::nullopt;
    return value ? std::optional(value->i) : std::nullopt;
  }

  void unknown_property(const ast::Property& p) {
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

  void causal(ir::Axis& a, const ast::Property& p) {
    a.causal = true;
    if (!p.value.valid()) return;
    const ir::NodeId node = typed(frame_, p.value, Type::boolean, "`causal`");
    if (!node.valid()) return;
    if (const auto value = evaluate(node))
      a.causal = value->b;
    else
      sink_.report(Kind::not_constant, expr(frame_, p.value).range, "`causal`");
  }

  // At least 1; where it may be dynamic, checked at launch.
  ir::NodeId axis_value(const ast::Property& p, std::string_view what, bool may_be_dynamic) {
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

  // Made of params and constants only.
  bool launch_scalar(ir::NodeId node) const {
    return ir::evaluate(module_, node,
                        [&](const ir::Symbol& s) -> std::optional<ir::Value> {
                          if (s.kind == SymbolKind::param) return module_.params[s.index].value;
                          return std::nullopt;
                        })
        .has_value();
  }

  void declare_param(const ast::Param& param) {
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
    const ir::NodeId node =
        type ? typed(frame_, param.value, *type, what) : scalar(frame_, param.value, what);
    if (!type || !node.valid() || !fresh) return poison(param.name);
    const auto value = evaluate(node);
    if (!value) {
      sink_.report(Kind::not_constant, expr(frame_, param.value).range,
                   fmt::format("the value of `{}`", param.name.text));
      return poison(param.name);
    }
    if (!room_for_declaration(param.name)) return;
    const auto bound = bindings_.values.find(param.name.text);
    module_.params.push_back({param.name.text, *type,
                              bound == bindings_.values.end() ? *value : bound->second, param.learnable,
                              param.learnable || bindings_.dynamic.contains(param.name.text)});
    declare(param.name,
            Term::scalar(
                note(module_.symbol(SymbolKind::param, static_cast<std::uint32_t>(module_.params.size() - 1)),
                     param.name.range)));
  }

  bool room_for_declaration(const ast::Identifier& name) {
    if (module_.params.size() + module_.inputs.size() < kMaxDeclarations) return true;
    sink_.report(Kind::too_large, name.range, kMaxDeclarations, "inputs and params");
    return false;
  }

  void declare(const ast::Identifier& name, Term term) {
    frame_.names[name.text] = std::move(term);
    declared_.emplace_back(name.text, name.range);
  }
  // Known, but wrong: its uses say nothing more.
  void poison(const ast::Identifier& name) { frame_.names.emplace(name.text, Term{}); }

  void declare_input(const ast::Input& input) {
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
  ir::NodeId dimension(ExprId id) {
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

  bool new_extent(const std::string& name) const {
    if (taken_.contains(name) || frame_.names.contains(name) || find_builtin(name) != nullptr ||
        is_special_function(name))
      return false;
    if (program_.visible[frame_.file].contains(name) || name == "inf" || name == "pi") return false;
    for (const ir::SymbolInfo& symbol : ir::all_symbols())
      if (symbol.name == name) return false;
    return true;
  }

  // Definitions.

  void define(const ast::Let& let) {
    std::vector<Term::Unguarded> reads;
    building_.let_reads = &reads;
    Term term = check(frame_, let.value);
    building_.let_reads = nullptr;
    if (term.kind == Term::Kind::tensor || term.kind == Term::Kind::slice ||
        term.kind == Term::Kind::function) {
      scalar(frame_, let.value, "a let");  // says what is wrong
      term = {};
    }
    term.unguarded = std::move(reads);
    if (!introduce(let.name)) return;
    if (!term.valid()) return poison(let.name);
    declare(let.name, std::move(term));
  }

  void assign(const ast::Assign& a) {
    const std::string& target = a.target.text;
    bool known = false;
    for (std::string_view t : kTargets) known = known || t == target;
    if (!known) {
      auto& d = sink_.report(Kind::unknown_target, a.target.range, target);
      if (target == "mask_mod" || target == "block_mask")
        d.fix(a.target.range, "mask");
      else if (target == "score_mod")
        d.fix(a.target.range, "score");
      else if (const auto near = support::nearest(target, kTargets); !near.empty())
        d.fix(a.target.range, std::string(near));
      else
        d.with_help(fmt::format("write `let {} = ...`", target));
      check(frame_, a.value);  // for its own mistakes
      return;
    }
    const auto [before, first] = assigned_.emplace(target, a.target.range);
    if (!first) {
      sink_.report(Kind::duplicate_assignment, a.target.range, target)
          .label(before->second, "first assigned here")
          .with_help(target == "mask"    ? "join the conditions: `mask = first and second`"
                     : target == "score" ? "name the first with `let` and use it in the second"
                                         : "keep one of the two");
      return;
    }
    if (target == "normalize") return choose(a, {"softmax", "sigmoid", "none"});
    if (target == "query" || target == "key") return choose(a, {"l2norm"});
    if (target == "align") return choose(a, {"start", "end"});
    const Root root = target == "score"   ? Root::score
                      : target == "mask"  ? Root::mask
                      : target == "scale" ? Root::scale
                      : target == "sink"  ? Root::sink
                                          : Root::output;
    const ir::NodeId node =
        typed(frame_, a.value, root == Root::mask ? Type::boolean : Type::real, fmt::format("`{}`", target));
    if (!node.valid()) return;
    module_.root(root) = node;
    check_reads(root, node, a);
  }

  void choose(const ast::Assign& a, std::initializer_list<std::string_view> choices) {
    const ast::Expr& value = expr(frame_, a.value);
    const auto* name = std::get_if<ast::Name>(&value.what);
    std::string list;
    for (std::string_view c : choices) list += fmt::format("{}`{}`", list.empty() ? "" : ", ", c);
    const std::string written(program_.sources.text(value.range));
    std::size_t choice = choices.size();
    for (std::size_t i = 0; i < choices.size(); ++i)
      if (name != nullptr && name->text == choices.begin()[i]) choice = i;
    if (choice == choices.size()) {
      auto& d = sink_.report(Kind::unknown_choice, value.range, a.target.text, written);
      d.with_help(fmt::format("it can be {}", list));
      return;
    }
    const std::string& target = a.target.text;
    if (target == "normalize")
      module_.normalize = static_cast<ir::Normalize>(choice);
    else if (target == "query")
      module_.query_l2norm = true;
    else if (target == "key")
      module_.key_l2norm = true;
    else
      module_.align_end = choice == 1;
  }

  // Meaning.

  // What each assignment may read.
  void check_reads(Root root, ir::NodeId node, const ast::Assign& a) {
    struct Rule {
      Root root;
      int forbidden;
      std::string_view what;
    };
    static constexpr Rule rules[] = {
        {Root::score, ir::kOutput, "`out` or `lse`"},
        {Root::mask, ir::kScore, "the score"},
        {Root::mask, ir::kOutput, "`out` or `lse`"},
        {Root::scale, ir::kScore | ir::kOutput, "the score"},
        {Root::scale, ir::kQuery | ir::kKey, "`q` or `k`"},
        {Root::sink, ir::kScore | ir::kOutput, "the score"},
        {Root::sink, ir::kQuery | ir::kKey, "`q` or `k`"},
        {Root::output, ir::kScore, "the score"},
        {Root::output, ir::kKey, "`k`"},
    };
    for (const Rule& rule : rules) {
      // The score varies with everything; what it stands for is said once.
      const int bits = variance_of(node) & rule.forbidden;
      if (rule.root != root || bits == 0) continue;
      auto& d = sink_.report(Kind::wrong_dependency, expr(frame_, a.value).range, a.target.text, rule.what);
      if (const auto culprit = find_read(node, rule.forbidden, expr(frame_, a.value).range))
        d.label(*culprit, "read here");
      if (root == Root::mask && (rule.forbidden & ir::kScore))
        d.with_help("drop keys by their score in `score`: `score = score if condition else -inf`");
      return;
    }
    if (root == Root::mask) check_mask(node);
  }

  // Where `within` reads it; a read that stands in a let or was first written elsewhere has no place there.
  std::optional<Range> find_read(ir::NodeId root, int forbidden, Range within) const {
    const std::vector<bool> reached = reachable(root);
    for (std::uint32_t n = 0; n <= root.value; ++n) {
      const auto* symbol = std::get_if<ir::Symbol>(&module_.nodes()[n].what);
      if (!reached[n] || symbol == nullptr || (ir::info(symbol->kind).varies & forbidden) == 0) continue;
      const Range at = building_.origins[n];
      if (at.file == within.file && at.begin >= within.begin && at.end <= within.end) return at;
    }
    return std::nullopt;
  }

  // The nodes that a root is made of.
  std::vector<bool> reachable(ir::NodeId root) const {
    std::vector<bool> reached(root.value + 1);
    reached[root.value] = true;
    for (std::uint32_t n = root.value + 1; n-- > 0;)
      if (reached[n])
        for (ir::NodeId id : module_.nodes()[n].operands) reached[id.value] = true;
    return reached;
  }

  void check_mask(ir::NodeId root) {
    const std::vector<bool> reached = reachable(root);
    for (std::uint32_t n = 0; n <= root.value; ++n) {
      const auto* apply = std::get_if<ir::Apply>(&module_.nodes()[n].what);
      if (apply == nullptr || !ir::info(apply->op).transcendental || !reached[n]) continue;
      if ((variance_of(ir::NodeId{n}) & (ir::kQuery | ir::kKey)) == 0) continue;
      const std::string_view name = ir::info(apply->op).name;
      sink_
          .report(Kind::mask_transcendental, building_.origins[n],
                  apply->op == ir::Op::pow_f ? "**" : name.substr(0, name.find('.')))
          .with_help(
              "compute it from params, inputs of the head or constants, or compare before applying it");
    }
  }

  void whole_block() {
    const auto at = [&](std::string_view target) { return assigned_.find(target)->second; };
    if (module_.align_end && !module_.axes.empty())
      sink_.report(Kind::axes_conflict, at("align"), "align = end").label(axis_ranges_[0], "an axis");
    if (module_.normalize != ir::Normalize::softmax) {
      if (module_.root(Root::sink).valid())
        sink_.report(Kind::needs_softmax, at("sink"), "sink").label(at("normalize"), "chosen here");
      const ir::NodeId output = module_.root(Root::output);
      const std::vector<bool> reached = output.valid() ? reachable(output) : std::vector<bool>();
      for (std::uint32_t n = 0; n < reached.size(); ++n) {
        const auto* symbol = std::get_if<ir::Symbol>(&module_.nodes()[n].what);
        if (reached[n] && symbol != nullptr && symbol->kind == SymbolKind::lse)
          sink_.report(Kind::needs_softmax, building_.origins[n], "lse")
              .label(at("normalize"), "chosen here");
      }
    }
  }

  static constexpr std::size_t kMaxAxes = 8;

  const ast::Attention& block_;
  const Bindings& bindings_;
  ir::Module& module_;
  Frame frame_;
  std::map<std::string, Range, std::less<>> taken_, assigned_;
  std::vector<std::pair<std::string, Range>> declared_;
  std::vector<Range> axis_ranges_, input_ranges_;
};

class FunctionChecker : ExpressionChecker {
 public:
  using ExpressionChecker::ExpressionChecker;
  void run() {
    for (std::uint32_t file = 0; file < program_.files.size(); ++file)
      for (std::uint32_t f = 0; f < program_.files[file].functions.size(); ++f)
        check_function_by_itself({file, f});
  }
};

}  // namespace

std::optional<CheckedSpec> check(const syntax::Program& program, const ast::Attention& block,
                                 const Bindings& bindings, diagnostics::Sink& sink) {
  return BlockChecker(program, block, bindings, sink).run();
}

void check_functions(const syntax::Program& program, diagnostics::Sink& sink) {
  FunctionChecker(program, sink).run();
}

}  // namespace vicinal::check
