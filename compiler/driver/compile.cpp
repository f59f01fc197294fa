#include "compiler/driver/compile.h"

#include <fmt/format.h>

#include "compiler/analysis/index_bounds.h"
#include "compiler/driver/score_remarks.h"
#include "compiler/driver/tile_remarks.h"
#include "compiler/passes/differentiate.h"

namespace vicinal::driver {
namespace {

using diagnostics::Kind;

// Indices that are always out of range are errors; those that nobody can bound are remarks.
void report_indices(const check::CheckedSpec& checked, diagnostics::Sink& sink) {
  const analysis::IndexBounds bounds = analysis::bound_indices(checked.module, false);
  const auto place = [&](const analysis::IndexFinding& f) {
    const ir::NodeId index = checked.module[f.node].operands[f.operand];
    // A constant's or symbol's first place in the text need not be this one; the load's is.
    return checked.module[index].operands.size() == 0 ? checked.origins[f.node.value]
                                                      : checked.origins[index.value];
  };
  const std::size_t errors = sink.error_count();
  for (const analysis::IndexFinding& f : bounds.never)
    sink.report(Kind::index_out_of_range, place(f), checked.module.inputs[f.input].name)
        .label(checked.input_ranges[f.input], "declared here");
  if (sink.error_count() != errors) return;
  for (const analysis::IndexFinding& f : bounds.clamped)
    sink.report(Kind::clamped_index, place(f), checked.module.inputs[f.input].name);
}

void add_checks(const std::vector<analysis::LaunchCheck>& more, std::vector<analysis::LaunchCheck>& all) {
  for (const analysis::LaunchCheck& check : more) {
    bool known = false;
    for (const analysis::LaunchCheck& c : all)
      known = known || (c.difference == check.difference && c.equality == check.equality);
    if (!known) all.push_back(check);
  }
}

}  // namespace

std::optional<Variant> compile_variant(const syntax::Program& program, const ast::Attention& block,
                                       const check::Bindings& bindings, diagnostics::Sink& sink,
                                       const passes::Observer& observe) {
  const std::size_t errors = sink.error_count();
  check::check_functions(program, sink);
  std::optional<check::CheckedSpec> checked = check::check(program, block, bindings, sink);
  if (!checked || sink.error_count() != errors) return std::nullopt;
  report_indices(*checked, sink);
  if (sink.error_count() != errors) return std::nullopt;

  Variant variant{*std::move(checked), {}, {}, {}};
  variant.optimized = passes::run_pipeline(variant.checked.module, observe);
  variant.specialized = emit::specialize(variant.optimized);
  add_checks(variant.specialized.grid.bounds.checks, variant.launch_checks);
  if (variant.specialized.context)
    add_checks(variant.specialized.context->bounds.checks, variant.launch_checks);
  if (!sink.has_errors()) {
    remark_on_tiles(variant.checked, variant.specialized, sink);
    remark_on_scores(variant.checked, variant.specialized, sink);
  }
  return variant;
}

ir::Module differentiated(const Variant& variant) {
  return passes::run_pipeline(passes::differentiate(variant.checked.module));
}

emit::Specialized before_output(const Variant& variant) {
  ir::Module module = variant.optimized;
  module.root(ir::Root::output) = {};
  return emit::specialize(module);
}

Result<const ast::Attention*> find_block(const syntax::Program& program, const std::string& name) {
  const std::vector<ast::Attention>& blocks = program.files[0].attentions;
  std::string list;
  for (const ast::Attention& block : blocks) {
    if (block.name.text == name) return &block;
    list += (list.empty() ? "" : ", ") + block.name.text;
  }
  const std::string file(program.sources.name(0));
  if (blocks.empty())
    return unexpected(ErrorKind::spec, fmt::format("there is no `attention` block in {}", file),
                      "a file of functions alone can only be imported");
  if (name.empty() && blocks.size() == 1) return &blocks[0];
  if (name.empty())
    return unexpected(ErrorKind::usage, fmt::format("{} has several attention blocks", file),
                      fmt::format("name one, as in `{}:{}`; there are {}", file, blocks[0].name.text, list));
  return unexpected(ErrorKind::usage, fmt::format("{} has no attention block `{}`", file, name),
                    fmt::format("there is {}", list));
}

}  // namespace vicinal::driver
