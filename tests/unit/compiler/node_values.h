// The values of a module's nodes for a pair that a test makes up, captured inputs included.
#pragma once

#include <functional>

#include "compiler/ir/module.h"
#include "compiler/ir/ops.h"
#include "compiler/support/match.h"

namespace vicinal::testing {

struct Reads {
  std::function<ir::Value(const ir::Symbol&)> symbol;
  // An element of an input, or of two inputs' product.
  std::function<ir::Value(ir::Type type, std::uint32_t input, const std::vector<std::int32_t>& indices)> load;
};

// By node. `wide`: floats in double, as in scores; otherwise each operation rounds to fp32, as in masks.
inline std::vector<ir::Value> node_values(const ir::Module& module, const Reads& reads, bool wide) {
  std::vector<ir::Value> values;
  for (const ir::Node& node : module.nodes()) {
    const auto load = [&](std::uint32_t input) {
      std::vector<std::int32_t> indices;
      for (ir::NodeId id : node.operands) indices.push_back(values[id.value].i);
      return reads.load(node.type, input, indices);
    };
    values.push_back(support::match(
        node.what, [](const ir::Constant& c) { return ir::value_of(c); },
        [&](const ir::Symbol& s) { return reads.symbol(s); },
        [&](const ir::Apply& a) {
          ir::Value operands[ir::kMaxArity] = {};
          for (std::size_t i = 0; i < node.operands.size(); ++i) operands[i] = values[node.operands[i].value];
          return (wide ? ir::info(a.op).wide : ir::info(a.op).exact)(operands);
        },
        [&](const ir::Load& l) { return load(l.input); }, [&](const ir::Dot& d) { return load(d.first); }));
  }
  return values;
}

}  // namespace vicinal::testing
