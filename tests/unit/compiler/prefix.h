// A node as a prefix expression, for tests that say what they expect.
#pragma once

#include <fmt/format.h>

#include "compiler/ir/text.h"
#include "compiler/support/match.h"

namespace vicinal::testing {

inline std::string prefix(const ir::Module& module, ir::NodeId id) {
  if (!id.valid()) return "none";
  const ir::Node& node = module[id];
  const std::string head = support::match(
      node.what,
      [&](const ir::Constant& c) -> std::string {
        const ir::Value value = ir::value_of(c);
        return c.type == ir::Type::integer ? fmt::format("{}", value.i)
               : c.type == ir::Type::real  ? fmt::format("{:#}", value.f)
               : value.b                   ? "true"
                                           : "false";
      },
      [&](const ir::Symbol& s) { return ir::spell(module, s); },
      [](const ir::Apply& a) { return std::string(ir::info(a.op).name); },
      [&](const ir::Load& l) { return module.inputs[l.input].name; },
      [](const ir::Dot&) { return std::string("dot"); });
  if (node.operands.size() == 0) return head;
  std::string out = "(" + head;
  for (ir::NodeId operand : node.operands) out += " " + prefix(module, operand);
  return out + ")";
}

}  // namespace vicinal::testing
