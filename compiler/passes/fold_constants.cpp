#include "compiler/passes/passes.h"
#include "compiler/passes/rewrite.h"

namespace vicinal::passes {

ir::Module fold_constants(const ir::Module& module) {
  return rewrite(module, [](ir::Module& m, const ir::Node& node) {
    const auto* apply = std::get_if<ir::Apply>(&node.what);
    if (apply == nullptr) return m.add(node);
    ir::Value values[ir::kMaxArity];
    for (std::size_t i = 0; i < node.operands.size(); ++i) {
      const auto value = m.constant_value(node.operands[i]);
      if (!value) return m.add(node);
      values[i] = *value;
    }
    return m.constant(node.type, ir::info(apply->op).exact(values));
  });
}

}  // namespace vicinal::passes
