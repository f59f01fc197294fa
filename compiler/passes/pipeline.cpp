#include "compiler/passes/pipeline.h"

#include <fmt/format.h>

#include <chrono>

#include "compiler/ir/text.h"
#include "compiler/ir/verify.h"
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

ir::Module specialize_context(const ir::Module& module, bool context_key) {
  const ir::Module substituted = rewrite(module, [&](ir::Module& m, const ir::Node& node) {
    const auto* symbol = std::get_if<ir::Symbol>(&node.what);
    if (symbol != nullptr && symbol->kind == ir::SymbolKind::k_context) return m.constant(context_key);
    return m.add(node);
  });
  return verified(simplify(fold_constants(simplify(fold_constants(substituted)))), "specialize-context");
}

}  // namespace vicinal::passes
