#include "compiler/analysis/pair_facts.h"
#include "compiler/passes/passes.h"
#include "compiler/passes/rewrite.h"

namespace vicinal::passes {

ir::Module use_neighborhood(const ir::Module& module) {
  const std::vector<ranges::Truth> truths =
      analysis::truths(module, analysis::neighborhood_distances(module));
  return rewrite(module, [&](ir::Module& m, const ir::Node& node, ir::NodeId old) {
    const ranges::Truth t = truths[old.value];
    if (node.type == ir::Type::boolean && !(t.can_hold && t.can_fail)) return m.constant(t.can_hold);
    return m.add(node);
  });
}

}  // namespace vicinal::passes
