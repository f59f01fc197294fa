#include "compiler/passes/passes.h"
#include "compiler/passes/rewrite.h"

namespace vicinal::passes {

ir::Module bake_params(const ir::Module& module) {
  return rewrite(module, [](ir::Module& m, const ir::Node& node) {
    const auto* symbol = std::get_if<ir::Symbol>(&node.what);
    if (symbol == nullptr || symbol->kind != ir::SymbolKind::param) return m.add(node);
    const ir::Param& param = m.params[symbol->index];
    return param.dynamic ? m.add(node) : m.constant(param.type, param.value);
  });
}

}  // namespace vicinal::passes
