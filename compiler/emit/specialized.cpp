#include "compiler/emit/specialized.h"

#include <cmath>

#include "compiler/passes/pipeline.h"
#include "compiler/passes/rewrite.h"

namespace vicinal::emit {
namespace {

SpecializedKeys keys(const ir::Module& module, bool context_key) {
  SpecializedKeys result{passes::specialize_keys(module, context_key), {}};
  result.bounds = analysis::bound_indices(result.module, context_key);
  return result;
}

void mark(const ir::Module& original, Uses& used) {
  // Dims of inputs keep their extents alive; they are the host's business, not the code's.
  ir::Module module = original;
  for (ir::Input& input : module.inputs) input.dims.clear();
  std::vector<bool> reached(module.size());
  module.for_each_use([&](ir::NodeId& id) { reached[id.value] = true; });
  for (std::size_t n = module.size(); n-- > 0;) {
    if (!reached[n]) continue;
    const ir::Node& node = module.nodes()[n];
    for (ir::NodeId id : node.operands) reached[id.value] = true;
    if (const auto* s = std::get_if<ir::Symbol>(&node.what)) {
      if (s->kind == ir::SymbolKind::param) used.params[s->index] = true;
      if (s->kind == ir::SymbolKind::named_extent) used.extents[s->index] = true;
    } else if (const auto* l = std::get_if<ir::Load>(&node.what)) {
      used.inputs[l->input] = true;
    } else if (const auto* d = std::get_if<ir::Dot>(&node.what)) {
      used.inputs[d->first] = used.inputs[d->second] = true;
    }
  }
}

}  // namespace

Specialized specialize(const ir::Module& after_pipeline) {
  Specialized result{keys(after_pipeline, false), std::nullopt};
  if (after_pipeline.context) result.context = keys(after_pipeline, true);
  return result;
}

bool has_mask(const ir::Module& module) {
  const auto value = module.constant_value(module.root(ir::Root::mask));
  return module.root(ir::Root::mask).valid() && !(value && value->b);
}
bool has_mask(const Specialized& variant) {
  return has_mask(variant.grid.module) || (variant.context && has_mask(variant.context->module));
}

bool has_score(const Specialized& variant) {
  const auto scored = [](const ir::Module& module) { return module.root(ir::Root::score).valid(); };
  return scored(variant.grid.module) || (variant.context && scored(variant.context->module));
}

float default_scale(int head_dim) {
  return static_cast<float>(1 / std::sqrt(static_cast<double>(head_dim)));
}

DType default_input_dtype(ir::Type type) {
  return type == ir::Type::real ? DType::f32 : type == ir::Type::integer ? DType::i32 : DType::boolean;
}

ScoreForms score_forms(const Specialized& variant, int head_dim, passes::Distances distances) {
  const bool whole = variant.context && (variant.grid.module.root(ir::Root::score).valid() ||
                                         variant.context->module.root(ir::Root::score).valid());
  const auto form = [&](ir::Module module) {
    // Without a softmax nothing may be taken out of a score.
    if (whole) module.normalize = ir::Normalize::none;
    return passes::score_form(module, default_scale(head_dim), distances);
  };
  ScoreForms forms{form(variant.grid.module), std::nullopt};
  if (variant.context) forms.context = form(variant.context->module);
  return forms;
}

Uses uses(const Specialized& variant) {
  const ir::Module& d = variant.declarations();
  const auto none = [&] {
    return Uses{std::vector<bool>(d.params.size()),
                std::vector<bool>(d.extents.size()),
                std::vector<bool>(d.inputs.size()),
                {}};
  };
  Uses used = none(), rows = none();
  ir::Module row_module = variant.grid.module;
  row_module.root(ir::Root::score) = row_module.root(ir::Root::mask) = {};
  mark(row_module, rows);
  used.row_inputs = rows.inputs;
  mark(variant.grid.module, used);
  if (variant.context) mark(variant.context->module, used);
  return used;
}

}  // namespace vicinal::emit
