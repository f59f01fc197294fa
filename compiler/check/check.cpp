#include "compiler/check/check.h"

#include <fmt/format.h>

#include "compiler/check/block.h"
#include "compiler/support/text.h"

namespace vicinal::check {

using diagnostics::Kind;
using ir::Root;
using ir::Type;

BlockChecker::BlockChecker(const syntax::Program& program, const ast::Attention& block,
                           const Bindings& bindings, diagnostics::Sink& sink)
    : ExpressionChecker(program, sink), block_(block), bindings_(bindings), module_(building_.module) {
  frame_.file = block.name.range.file;
  frame_.block = true;
  module_.name = block.name.text;
}

std::optional<CheckedSpec> BlockChecker::run() {
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

void BlockChecker::define(const ast::Let& let) {
  std::vector<Term::Guarded> reads;
  building_.let_reads = &reads;
  Term term = check(frame_, let.value);
  building_.let_reads = nullptr;
  if (term.kind == Term::Kind::tensor || term.kind == Term::Kind::slice ||
      term.kind == Term::Kind::function) {
    scalar(frame_, let.value);  // says what is wrong
    term = {};
  }
  term.guarded = std::move(reads);
  if (!introduce(let.name)) return;
  if (!term.valid()) return poison(let.name);
  declare(let.name, std::move(term));
}

void BlockChecker::assign(const ast::Assign& a) {
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

void BlockChecker::choose(const ast::Assign& a, std::initializer_list<std::string_view> choices) {
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

namespace {

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
