// The loop that every pass shares: a new module, node by node, of what the old one's roots reach.
#pragma once

#include <type_traits>
#include <utility>

#include "compiler/ir/module.h"

namespace vicinal::passes {

// `replace(module, node)` gets each reachable node with its operands already replaced and returns what stands
// for it in the new module: module.add(node) to keep it. It may take the node's old id too.
template <class Replace>
ir::Module rewrite(const ir::Module& old, Replace replace) {
  ir::Module module = old.without_nodes();
  std::vector<bool> reached(old.size());
  module.for_each_use([&](ir::NodeId& id) { reached[id.value] = true; });
  for (std::size_t n = old.size(); n-- > 0;)
    if (reached[n])
      for (ir::NodeId id : old.nodes()[n].operands) reached[id.value] = true;

  std::vector<ir::NodeId> now(old.size());
  for (std::size_t n = 0; n < old.size(); ++n) {
    if (!reached[n]) continue;
    ir::Node node = old.nodes()[n];
    for (ir::NodeId& id : node.operands) id = now[id.value];
    if constexpr (std::is_invocable_v<Replace, ir::Module&, const ir::Node&, ir::NodeId>)
      now[n] = replace(module, std::as_const(node), ir::NodeId{static_cast<std::uint32_t>(n)});
    else
      now[n] = replace(module, std::as_const(node));
  }
  module.for_each_use([&](ir::NodeId& id) { id = now[id.value]; });
  return module;
}

}  // namespace vicinal::passes
