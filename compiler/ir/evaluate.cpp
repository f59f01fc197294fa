#include "compiler/ir/evaluate.h"

#include "compiler/support/match.h"

namespace vicinal::ir {

// One loop over the list rather than recursion: an unrolled sum is as deep as it is long.
std::optional<Value> evaluate(const Module& module, NodeId node, const SymbolLookup& lookup) {
  std::vector<std::optional<Value>> values(node.value + 1);
  for (std::uint32_t n = 0; n <= node.value; ++n) {
    const Node& current = module.nodes()[n];
    values[n] = support::match(
        current.what, [](const Constant& c) { return std::optional(value_of(c)); },
        [&](const Symbol& s) { return lookup(s); },
        [&](const Apply& a) -> std::optional<Value> {
          Value operands[kMaxArity];
          for (std::size_t i = 0; i < current.operands.size(); ++i) {
            const auto& operand = values[current.operands[i].value];
            if (!operand) return std::nullopt;
            operands[i] = *operand;
          }
          return info(a.op).exact(operands);
        },
        [](const Load&) -> std::optional<Value> { return std::nullopt; },
        [](const Dot&) -> std::optional<Value> { return std::nullopt; });
  }
  return values[node.value];
}

}  // namespace vicinal::ir
