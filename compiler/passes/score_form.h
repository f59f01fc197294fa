// The score, split into what a kernel can fold into the exponent of its softmax and what it computes for each
// element.
#pragma once

#include "compiler/ir/module.h"

namespace vicinal::passes {

// score = factor * core + slope * (k - q) + shift, up to rounding. The parts are nodes of `module`.
//
// The shift is the same for all keys of a row: it changes no weight, only what the row's sum of exponentials
// is. A kernel that leaves it out takes `sink - shift` for the sink and gives `lse + shift` as the LSE, also
// to the output expression.
struct ScoreForm {
  // Root::score is the core, in which the symbol `score` is the dot product before scaling; there is no
  // Root::scale.
  ir::Module module;
  // Varies with the batch and heads at most. Positive and finite as a real number, whatever finite values
  // inputs and params have; an exp in it may still come to 0 or inf in fp32. None: 1.
  ir::NodeId factor;
  ir::NodeId slope;  // varies with the batch and heads at most; none: 0
  // Varies with the row, never with the key. Finite where inputs and params are, unless its products and sums
  // leave fp32. None: 0.
  ir::NodeId shift;
  bool core_is_score = false;  // Root::score is the symbol itself: nothing is computed for an element
};

// Whether multiples of k - q are taken out of the core, as slope.
enum class Distances { slope, core };

// Stands after specialize_keys. `default_scale` is what scales the dot product where the module does not say.
// Without softmax all of the score is core.
ScoreForm score_form(const ir::Module& module, float default_scale, Distances distances = Distances::slope);

}  // namespace vicinal::passes
