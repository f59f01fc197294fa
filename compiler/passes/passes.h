// The passes themselves. Each takes a module and returns a new one that means the same.
#pragma once

#include "compiler/ir/module.h"

namespace vicinal::passes {

// Params that are not dynamic become constants.
ir::Module bake_params(const ir::Module& module);

// Operations on constants become constants, as exact evaluation gives them: a mask must fold to the bit, and
// a score may.
ir::Module fold_constants(const ir::Module& module);

// One form for what can be written in several: constants to the right, a - c as a + (-c), commutative
// operands in order. Stands before simplify, whose rules then need one side only.
ir::Module canonicalize(const ir::Module& module);

// Rules that make less of it, each exact for every input, NaN and -0 included.
ir::Module simplify(const ir::Module& module);

// A score that is -inf where a condition fails says what a mask says, and becomes one: `score if c else -inf`
// is `score` under `mask and c`. Only conditions without floats move, since a mask computes those otherwise.
// Stands after simplify, which brings choices to light.
ir::Module mask_from_score(const ir::Module& module);

// Conditions on how far a key is from its query become constants where the neighborhoods decide them: under a
// causal axis `k.t <= q.t` always holds. For modules that only the grid's keys see, since context keys have
// no coordinates.
ir::Module use_neighborhood(const ir::Module& module);

}  // namespace vicinal::passes
