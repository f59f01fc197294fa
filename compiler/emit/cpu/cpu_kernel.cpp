#include "compiler/emit/cpu/cpu_kernel.h"

#include <fmt/format.h>

#include <algorithm>

#include "compiler/ir/text.h"

namespace vicinal::emit {
namespace {

using ir::NodeId;
using ir::Root;

class UniformFinder {
 public:
  explicit UniformFinder(CpuKernel& kernel) : kernel_(kernel) {}

  // `of_mask`: nodes besides the module's roots, which say what the mask says.
  void find(CpuKeys& keys, bool context, std::vector<NodeId> of_mask) {
    const ir::Module& m = keys.form.module;
    keys.uniform.assign(m.size(), kNotUniform);
    of_mask.push_back(m.root(Root::mask));
    add(keys, context, of_mask, true);
    std::vector<NodeId> rest = {m.root(Root::score), m.root(Root::output), keys.form.factor, keys.form.slope,
                                keys.form.shift};
    for (const ir::Partial& p : m.partials)
      if (p.of == Root::score || (p.of == Root::output && !context)) rest.push_back(p.value);
    add(keys, context, rest, false);
    // Indices of what gradients are added to.
    for (const CpuSite& site : kernel_.sites)
      if (site.context == context && !site.uniform)
        add(keys, context, {m[site.leaf].operands.begin(), m[site.leaf].operands.end()}, true);
  }

 private:
  void add(CpuKeys& keys, bool context, const std::vector<NodeId>& roots, bool exact) {
    const ir::Module& m = keys.form.module;
    const std::vector<std::uint8_t> varies = ir::variance(m);
    std::vector<bool> wanted(m.size());
    for (const NodeId root : roots)
      if (root.valid()) wanted[root.value] = true;
    for (std::uint32_t n = static_cast<std::uint32_t>(m.size()); n-- > 0;) {
      if (!wanted[n]) continue;
      const ir::Node& node = m.nodes()[n];
      if ((varies[n] & ~(ir::kBatch | ir::kHead)) != 0) {
        for (const NodeId operand : node.operands) wanted[operand.value] = true;
      } else if (!std::holds_alternative<ir::Constant>(node.what) && keys.uniform[n] == kNotUniform) {
        keys.uniform[n] = static_cast<std::uint32_t>(kernel_.uniforms.size());
        kernel_.uniforms.push_back({context, NodeId{n}, exact});
      }
    }
  }

  CpuKernel& kernel_;
};

CpuKeys make_keys(passes::ScoreForm form, bool context) {
  CpuKeys keys{std::move(form), {}, false, {}};
  keys.bounds = analysis::bound_indices(keys.form.module, context);
  keys.has_mask = has_mask(keys.form.module);
  return keys;
}

std::string print(const CpuKeys& keys) {
  const auto number = [](NodeId id) { return id.valid() ? fmt::format("%{}", id.value) : std::string("-"); };
  return fmt::format("{}factor {} slope {} shift {}\n", ir::print(keys.form.module), number(keys.form.factor),
                     number(keys.form.slope), number(keys.form.shift));
}

}  // namespace

bool CpuKernel::windowed(std::size_t axis) const {
  const ir::Axis& a = declarations().axes[axis];
  return a.window.valid() || a.causal;
}
bool CpuKernel::windowed() const {
  for (std::size_t i = 0; i < declarations().axes.size(); ++i)
    if (windowed(i)) return true;
  return false;
}

bool CpuKernel::has_limits() const {
  if (declarations().axes.size() == 1) return windowed();
  return !limits.begins.empty() || !limits.ends.empty() || !limits.conditions.empty();
}

namespace {

// All that follows from the scores' forms.
CpuKernel make_kernel(const Specialized& variant, ScoreForms forms, const CpuKernelOptions& options) {
  CpuKernel kernel;
  kernel.options = options;
  kernel.grid = make_keys(std::move(forms.grid), false);
  if (forms.context) kernel.context = make_keys(*std::move(forms.context), true);
  const ir::Module& m = kernel.declarations();
  const ir::Module& declared = variant.declarations();
  kernel.normalize = declared.normalize;
  kernel.query_l2norm = declared.query_l2norm;
  kernel.key_l2norm = declared.key_l2norm;
  kernel.reads_key_places = kernel.grid.form.slope.valid();
  for (const ir::Node& node : m.nodes()) {
    const auto* s = std::get_if<ir::Symbol>(&node.what);
    if (s != nullptr && (s->kind == ir::SymbolKind::k || s->kind == ir::SymbolKind::k_axis))
      kernel.reads_key_places = true;
  }
  kernel.has_sink = kernel.normalize == ir::Normalize::softmax && m.root(Root::sink).valid();
  if (m.axes.empty()) kernel.limits = analysis::row_limits(m);
  return kernel;
}

void find_uniforms(CpuKernel& kernel) {
  UniformFinder finder(kernel);
  std::vector<NodeId> of_limits = kernel.limits.conditions;
  for (const auto* sums : {&kernel.limits.begins, &kernel.limits.ends})
    for (const analysis::RowSum& sum : *sums)
      for (const analysis::RowSum::Term& term : sum.terms) of_limits.push_back(term.value);
  finder.find(kernel.grid, false, of_limits);
  if (kernel.context) finder.find(*kernel.context, true, {});
}

bool varies_beyond_slice(const ir::Module& m, NodeId leaf) {
  const std::vector<std::uint8_t> varies = ir::variance(m);
  return std::ranges::any_of(m[leaf].operands,
                             [&](NodeId id) { return (varies[id.value] & ~(ir::kBatch | ir::kHead)) != 0; });
}

void add_sites(CpuKernel& kernel, bool context, const ir::Partial& p) {
  const ir::Module& m = kernel.keys(context).form.module;
  const ir::Node& leaf = m[p.leaf];
  if (std::holds_alternative<ir::Dot>(leaf.what)) {
    for (const bool second : {false, true})
      if (m.inputs[read_of(leaf, second).input].learnable)
        kernel.sites.push_back({context, p.of, p.leaf, p.value, second, false});
    return;
  }
  const auto* s = std::get_if<ir::Symbol>(&leaf.what);
  if (s == nullptr || s->kind == ir::SymbolKind::param)
    kernel.sites.push_back({context, p.of, p.leaf, p.value, false, !varies_beyond_slice(m, p.leaf)});
}

void find_sites(CpuKernel& kernel, bool context) {
  for (const ir::Partial& p : kernel.keys(context).form.module.partials) {
    if (p.of == Root::score || (p.of == Root::output && !context)) add_sites(kernel, context, p);
    if (context) continue;
    kernel.scale_sum = kernel.scale_sum || p.of == Root::scale;
    kernel.sink_sum = kernel.sink_sum || (p.of == Root::sink && kernel.has_sink);
  }
}

passes::ScoreForm whole_form(const ir::Module& module, int head_dim) {
  passes::ScoreForm form{module, {}, {}, {}, !module.root(Root::score).valid()};
  const NodeId scale = module.root(Root::scale);
  form.factor = scale.valid() ? scale : form.module.constant(default_scale(head_dim));
  return form;
}

}  // namespace

InputRead read_of(const ir::Node& leaf, bool second) {
  const std::size_t end = leaf.operands.size();
  if (const auto* load = std::get_if<ir::Load>(&leaf.what)) return {load->input, 0, end};
  const auto& dot = std::get<ir::Dot>(leaf.what);
  return second ? InputRead{dot.second, dot.first_indices, end} : InputRead{dot.first, 0, dot.first_indices};
}

CpuKernel cpu_kernel(const Specialized& variant, const CpuKernelOptions& options) {
  CpuKernel kernel = make_kernel(variant, score_forms(variant, options.head_dim), options);
  find_uniforms(kernel);
  return kernel;
}

CpuKernel cpu_backward_kernel(const Specialized& differentiated, const CpuKernelOptions& options,
                              bool captured) {
  ScoreForms forms{whole_form(differentiated.grid.module, options.head_dim), std::nullopt};
  if (differentiated.context) forms.context = whole_form(differentiated.context->module, options.head_dim);
  CpuKernel kernel = make_kernel(differentiated, std::move(forms), options);
  kernel.pass = CpuPass::backward;
  if (captured) {
    find_sites(kernel, false);
    if (kernel.context) find_sites(kernel, true);
  }
  find_uniforms(kernel);
  return kernel;
}

std::string print(const CpuKernel& kernel) {
  const CpuKernelOptions& o = kernel.options;
  std::string text = kernel.pass == CpuPass::backward
                         ? fmt::format("backward, {} sites, sums {} {}\n", kernel.sites.size(),
                                       kernel.scale_sum, kernel.sink_sum)
                         : std::string();
  text += fmt::format("{}{} out {} head_dim {} value_dim {} tile {} {} exact {} {} {} {}\n",
                      o.target.empty() ? "" : o.target + " ", name_of(o.dtype), name_of(o.output()),
                      o.head_dim, o.value_dim, o.tile_q, o.tile_k, o.exact, ir::name_of(kernel.normalize),
                      kernel.query_l2norm, kernel.key_l2norm);
  for (const DType dtype : o.input_dtypes) text += fmt::format("{} ", name_of(dtype));
  text += "\n" + print(kernel.grid);
  if (kernel.context) text += print(*kernel.context);
  return text;
}

}  // namespace vicinal::emit
