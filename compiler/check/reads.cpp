// What an assignment may read, and which statements exclude each other.
#include <fmt/format.h>

#include "compiler/check/block.h"
#include "compiler/ir/reachable.h"

namespace vicinal::check {

using diagnostics::Kind;
using ir::Root;
using ir::SymbolKind;

void BlockChecker::check_reads(Root root, ir::NodeId node, const ast::Assign& a) {
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

std::optional<Range> BlockChecker::find_read(ir::NodeId root, int forbidden, Range within) const {
  const std::vector<bool> reached = ir::reachable(module_, root);
  for (std::uint32_t n = 0; n <= root.value; ++n) {
    const auto* symbol = std::get_if<ir::Symbol>(&module_.nodes()[n].what);
    if (!reached[n] || symbol == nullptr || (ir::info(symbol->kind).varies & forbidden) == 0) continue;
    const Range at = building_.origins[n];
    if (at.file == within.file && at.begin >= within.begin && at.end <= within.end) return at;
  }
  return std::nullopt;
}

void BlockChecker::check_mask(ir::NodeId root) {
  const std::vector<bool> reached = ir::reachable(module_, root);
  for (std::uint32_t n = 0; n <= root.value; ++n) {
    const auto* apply = std::get_if<ir::Apply>(&module_.nodes()[n].what);
    if (apply == nullptr || !ir::info(apply->op).transcendental || !reached[n]) continue;
    if ((variance_of(ir::NodeId{n}) & (ir::kQuery | ir::kKey)) == 0) continue;
    const std::string_view name = ir::info(apply->op).name;
    sink_
        .report(Kind::mask_transcendental, building_.origins[n],
                apply->op == ir::Op::pow_f ? "**" : name.substr(0, name.find('.')))
        .with_help("compute it from params, inputs of the head or constants, or compare before applying it");
  }
}

void BlockChecker::whole_block() {
  const auto at = [&](std::string_view target) { return assigned_.find(target)->second; };
  if (module_.align_end && !module_.axes.empty())
    sink_.report(Kind::axes_conflict, at("align"), "align = end").label(axis_ranges_[0], "an axis");
  if (module_.normalize != ir::Normalize::softmax) {
    if (module_.root(Root::sink).valid())
      sink_.report(Kind::needs_softmax, at("sink"), "sink").label(at("normalize"), "chosen here");
    const ir::NodeId output = module_.root(Root::output);
    const std::vector<bool> reached = output.valid() ? ir::reachable(module_, output) : std::vector<bool>();
    for (std::uint32_t n = 0; n < reached.size(); ++n) {
      const auto* symbol = std::get_if<ir::Symbol>(&module_.nodes()[n].what);
      if (reached[n] && symbol != nullptr && symbol->kind == SymbolKind::lse)
        sink_.report(Kind::needs_softmax, building_.origins[n], "lse").label(at("normalize"), "chosen here");
    }
  }
}

}  // namespace vicinal::check
