#include "compiler/emit/gradient_sites.h"

namespace vicinal::emit {

std::vector<GradientSite> gradient_sites(const SpecializedKeys& keys, bool context_key) {
  const ir::Module& m = keys.module;
  std::vector<GradientSite> sites;
  for (std::size_t i = 0; i < m.partials.size(); ++i) {
    const ir::NodeId id = m.partials[i].leaf;
    const ir::Node& leaf = m[id];
    const std::span<const ir::NodeId> operands(leaf.operands.begin(), leaf.operands.size());
    const auto add = [&](GradientSite site, std::span<const ir::NodeId> indices) {
      site.partial = i;
      site.use = analysis::index_use(m, indices);
      const bool clamped = !indices.empty() && keys.bounds.clamp[id.value] != 0;
      site.adding = analysis::accumulation(site.use.pattern, clamped, context_key);
      sites.push_back(std::move(site));
    };
    const auto add_input = [&](std::uint32_t input, bool dot, bool second,
                               std::span<const ir::NodeId> indices) {
      if (m.inputs[input].learnable) add({.index = input, .dot = dot, .second = second}, indices);
    };
    if (const auto* s = std::get_if<ir::Symbol>(&leaf.what); s != nullptr && s->kind == ir::SymbolKind::param)
      add({.param = true, .index = s->index}, {});
    if (const auto* l = std::get_if<ir::Load>(&leaf.what)) add_input(l->input, false, false, operands);
    if (const auto* d = std::get_if<ir::Dot>(&leaf.what)) {
      add_input(d->first, true, false, operands.first(d->first_indices));
      add_input(d->second, true, true, operands.subspan(d->first_indices));
    }
  }
  return sites;
}

}  // namespace vicinal::emit
