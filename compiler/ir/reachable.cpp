#include "compiler/ir/reachable.h"

namespace vicinal::ir {

std::vector<bool> reachable(const Module& module, NodeId root) {
  std::vector<bool> reached(root.value + 1);
  reached[root.value] = true;
  for (std::uint32_t n = root.value + 1; n-- > 0;)
    if (reached[n])
      for (const NodeId id : module.nodes()[n].operands) reached[id.value] = true;
  return reached;
}

}  // namespace vicinal::ir
