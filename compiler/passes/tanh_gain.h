// Softcaps without special functions. A tanh on the special-function unit next to the exponential would take
// as long as the tensor cores take for the tile, and the hardware's tanh is off by up to 2^-11 of its result:
// the cap times that in a score, where a plain program is off by a rounding. But most scores are far from
// their cap, and there an odd polynomial does.
#pragma once

#include <array>
#include <optional>

#include "compiler/passes/score_form.h"

namespace vicinal::passes {

// Scores factor * tanh(slope * s): while |s| <= limit their exponent to base 2 is
// s * (terms[0] + terms[1] * s^2 + terms[2] * s^4 + terms[3] * s^6), within 2^-24 of itself before rounding.
// Everywhere the score's derivative is rise * (1 - (exponent / bound)^2).
struct TanhGain {
  std::array<float, 4> terms = {};
  float limit = 0;
  float rise = 0, bound = 1;
};

// Nothing for other scores, and where factor or slope are only known at launch.
std::optional<TanhGain> tanh_gain(const ScoreForm& form);

}  // namespace vicinal::passes
