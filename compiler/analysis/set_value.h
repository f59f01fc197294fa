// What a value of the IR can be when its operands are known only to lie in sets.
#pragma once

#include "compiler/ir/module.h"
#include "templates/vicinal/ranges.cuh"

namespace vicinal::analysis {

// Of the node's type: an int, a float or a bool.
union SetValue {
  ranges::Range i;
  ranges::RealRange f;
  ranges::Truth b;
};

SetValue single(ir::Type type, ir::Value value);
SetValue anything(ir::Type type);

// By the operation's rule in templates/vicinal/ranges.cuh. Operands beyond its arity are not read.
SetValue apply_rule(ir::Op op, const SetValue& x, const SetValue& y, const SetValue& z);

}  // namespace vicinal::analysis
