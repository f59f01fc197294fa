// Adjoints while they are collected: products that keep their factors apart, so that they cancel, under
// conditions that are kept apart too, so that the derivative of a branch that is not taken never counts, be
// it NaN.
#pragma once

#include <vector>

#include "compiler/ir/module.h"

namespace vicinal::passes {

// The product of `over` divided by the product of `under`.
struct Product {
  std::vector<ir::NodeId> over, under;
};

// A condition that holds, or does not.
struct Literal {
  ir::NodeId condition;
  bool holds;
  friend bool operator==(const Literal&, const Literal&) = default;
};

// `value` where all of the path holds, and 0 elsewhere, whatever the value is there.
struct Adjoint {
  std::vector<Literal> path;
  Product value;
  bool vanishes = false;  // the value itself is 0 where the last condition of the path does not hold
};

Adjoint times(Adjoint adjoint, ir::NodeId factor);
Adjoint divided_by(Adjoint adjoint, ir::NodeId divisor);
Adjoint where(Adjoint adjoint, ir::NodeId condition, bool holds);

// The product as a node. Factors that stand over and under the line cancel; constants fold where fp32 holds
// their product.
ir::NodeId node_of(ir::Module& module, const Product& product);
// The sum of several, at least one.
Adjoint sum_of(ir::Module& module, std::vector<Adjoint> terms);
// Its value, with 0 where the path does not hold.
ir::NodeId node_of(ir::Module& module, const Adjoint& adjoint);

}  // namespace vicinal::passes
