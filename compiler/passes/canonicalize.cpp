#include <limits>

#include "compiler/passes/passes.h"
#include "compiler/passes/rewrite.h"

namespace vicinal::passes {

using ir::Op;

ir::Module canonicalize(const ir::Module& module) {
  return rewrite(module, [](ir::Module& m, const ir::Node& node) {
    const auto* apply = std::get_if<ir::Apply>(&node.what);
    if (apply == nullptr) return m.add(node);
    if (apply->op == Op::sub_i) {
      const auto right = m.constant_value(node.operands[1]);
      if (right && right->i != std::numeric_limits<std::int32_t>::min())
        return m.apply(Op::add_i, {node.operands[0], m.constant(-right->i)});
    }
    if (!ir::info(apply->op).commutative) return m.add(node);
    // Constants last, then by age; min and max of -0 and +0 do not depend on the order either.
    const ir::NodeId a = node.operands[0], b = node.operands[1];
    const bool swap = m.is_constant(a) != m.is_constant(b) ? m.is_constant(a) : b < a;
    return swap ? m.apply(apply->op, {b, a}) : m.add(node);
  });
}

}  // namespace vicinal::passes
