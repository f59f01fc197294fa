#include "compiler/passes/pipeline.h"

#include <fmt/format.h>

#include <chrono>

#include "compiler/analysis/pair_facts.h"
#include "compiler/ir/text.h"
#include "compiler/ir/verify.h"
#include "compiler/passes/differentiate.h"
#include "compiler/passes/passes.h"
#include "compiler/passes/rewrite.h"
#include "compiler/support/check.h"

namespace vicinal::passes {
namespace {

// Folding opens the way for rules and rules for folding; two rounds settle all but contrived specs.
constexpr Pass kPipeline[] = {
    {"bake-params", "params that are not dynamic become constants", bake_params},
    {"fold-constants", "operations on constants become constants", fold_constants},
    {"canonicalize", "one form for what can be written in several", canonicalize},
    {"simplify", "rules that make less of it", simplify},
    {"mask-from-score", "scores of -inf become masks", mask_from_score},
    {"fold-constants-again", "what the rules have opened", fold_constants},
    {"simplify-again", "what folding has opened", simplify},
};

ir::Module verified(ir::Module module, std::string_view pass) {
  const auto broken = ir::verify(module);
  VICINAL_ASSERT(!broken, fmt::format("after {}: {}\n{}", pass, broken.value_or(""), ir::print(module)));
  return module;
}

}  // namespace

std::span<const Pass> pipeline() {
  return kPipeline;
}

ir::Module run_pipeline(const ir::Module& module, const Observer& observe) {
  ir::Module current = verified(module, "check");
  for (const Pass& pass : kPipeline) {
    const auto start = std::chrono::steady_clock::now();
    ir::Module next = pass.run(current);
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
    const PassReport report{pass.name, time.count(), current.size(), next.size()};
    current = verified(std::move(next), pass.name);
    if (observe) observe(report, current);
  }
  return current;
}

namespace {

ir::Module settled(const ir::Module& module) {
  ir::Module result = simplify(fold_constants(simplify(fold_constants(module))));
  return result.partials.empty() ? result : drop_zero_partials(result);
}

}  // namespace

bool keeps_own_key(const ir::Module& module) {
  const ir::Module own = settled(rewrite(module, [](ir::Module& m, const ir::Node& node) {
    const auto* symbol = std::get_if<ir::Symbol>(&node.what);
    if (symbol != nullptr && symbol->kind == ir::SymbolKind::k) return m.symbol(ir::SymbolKind::q);
    if (symbol != nullptr && symbol->kind == ir::SymbolKind::k_axis)
      return m.symbol(ir::SymbolKind::q_axis, symbol->index);
    return m.add(node);
  }));
  const ir::NodeId mask = own.root(ir::Root::mask);
  return !mask.valid() ||
         ranges::always(analysis::truths(own, analysis::neighborhood_distances(own))[mask.value]);
}

ir::Module specialize_keys(const ir::Module& module, bool context_key) {
  const ir::Module substituted = rewrite(module, [&](ir::Module& m, const ir::Node& node) {
    const auto* symbol = std::get_if<ir::Symbol>(&node.what);
    if (symbol != nullptr && symbol->kind == ir::SymbolKind::k_context) return m.constant(context_key);
    return m.add(node);
  });
  const ir::Module result = verified(settled(substituted), "specialize-keys");
  return context_key ? result : verified(settled(use_neighborhood(result)), "use-neighborhood");
}

}  // namespace vicinal::passes
