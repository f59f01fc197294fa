#include "cli/commands/explain_gradient.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "compiler/driver/gradient_text.h"
#include "runtime/kernel_impl.h"

namespace vicinal::cli {
namespace {

using nlohmann::ordered_json;

std::vector<std::string> axis_names(const ir::Module& module, const analysis::IndexUse& use) {
  std::vector<std::string> names;
  for (const std::uint32_t axis : use.axes)
    names.push_back(axis < module.axes.size() ? module.axes[axis].name : "position");
  return names;
}

std::string describe(const ir::Module& module, const analysis::IndexUse& use) {
  std::string text(name_of(use.pattern));
  if (use.pattern == analysis::IndexPattern::distance && !module.axes.empty())
    text += fmt::format(" along {}", fmt::join(axis_names(module, use), ", "));
  return text;
}

void print_json(const ir::Module& module, const driver::GradientText& text,
                const std::vector<driver::GradientSite>& sites) {
  ordered_json json = {{"schema", "vicinal.explain.gradient.v1"}, {"spec", module.name}, {"lets", text.lets}};
  json["derivatives"] = ordered_json::array();
  for (const auto& d : text.derivatives)
    json["derivatives"].push_back({{"of", d.of}, {"with_respect_to", d.leaf}, {"value", d.value}});
  json["inputs"] = ordered_json::array();
  for (const driver::GradientSite& site : sites)
    json["inputs"].push_back({{"input", module.inputs[site.input].name},
                              {"read", text.derivatives[site.partial].leaf},
                              {"in", text.derivatives[site.partial].of},
                              {"pattern", name_of(site.use.pattern)},
                              {"axes", axis_names(module, site.use)},
                              {"accumulation", name_of(analysis::accumulation(site.use.pattern))}});
  fmt::print("{}\n", json.dump(2));
}

}  // namespace

Result<int> explain_gradient(const Spec& spec, bool json) {
  const ir::Module module = driver::differentiated(spec.impl().variant);
  const driver::GradientText text = driver::gradient_text(module);
  const std::vector<driver::GradientSite> sites = driver::gradient_sites(module);
  if (json) return print_json(module, text, sites), int{kOk};
  fmt::print("{}", driver::print_gradient(module));
  if (sites.empty()) return fmt::print("no captured tensor is learnable\n"), int{kOk};
  fmt::print("gradients of captured tensors:\n");
  for (const driver::GradientSite& site : sites)
    fmt::print("  {:<24} in {:<8} {:<24} {}\n", text.derivatives[site.partial].leaf,
               text.derivatives[site.partial].of, describe(module, site.use),
               name_of(analysis::accumulation(site.use.pattern)));
  return int{kOk};
}

}  // namespace vicinal::cli
