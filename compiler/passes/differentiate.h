// Derivatives of a variant's expressions, as expressions.
#pragma once

#include <vector>

#include "compiler/ir/module.h"

namespace vicinal::passes {

// The module with the partial derivatives of its score, scale, sink and output: with respect to the scaled
// dot product, to `out` and `lse`, and to every place where a learnable param or input is read. Reverse mode,
// an expression at a time; what the derivative has in common with the expression are the same nodes.
//
// Stands before every other pass, which then work on the derivatives too: at a kink it matters in which order
// operands were written, and canonicalize reorders them. Derivatives are those of a pair that is kept: where
// the score is the constant -inf they may be anything.
ir::Module differentiate(const ir::Module& checked);

// Without the partials that are the constant 0, as those of a guarded read are on the guard's other side.
ir::Module drop_zero_partials(const ir::Module& module);

}  // namespace vicinal::passes
