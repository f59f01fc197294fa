#include "compiler/ir/evaluate.h"

#include <unordered_map>
#include <vector>

#include "compiler/support/match.h"

namespace vicinal::ir {

// A walk with a list of its own rather than recursion: an unrolled sum is as deep as it is long. It visits
// what the node is made of and nothing else, since the checker asks of many nodes while the module grows.
std::optional<Value> evaluate(const Module& module, NodeId node, const SymbolLookup& lookup) {
  std::unordered_map<NodeId, std::optional<Value>> values;
  std::vector<NodeId> open = {node};
  while (!open.empty()) {
    const NodeId n = open.back();
    const Node& current = module[n];
    const std::size_t before = open.size();
    if (!values.contains(n))
      for (NodeId id : current.operands)
        if (!values.contains(id)) open.push_back(id);
    if (open.size() != before) continue;
    open.pop_back();
    values[n] = support::match(
        current.what, [](const Constant& c) { return std::optional(value_of(c)); },
        [&](const Symbol& s) { return lookup(s); },
        [&](const Apply& a) -> std::optional<Value> {
          Value operands[kMaxArity];
          for (std::size_t i = 0; i < current.operands.size(); ++i) {
            const auto& operand = values.at(current.operands[i]);
            if (!operand) return std::nullopt;
            operands[i] = *operand;
          }
          return info(a.op).exact(operands);
        },
        [](const Load&) -> std::optional<Value> { return std::nullopt; },
        [](const Dot&) -> std::optional<Value> { return std::nullopt; });
  }
  return values.at(node);
}

}  // namespace vicinal::ir
