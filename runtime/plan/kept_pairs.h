// How many pairs a list of tiles keeps, counted exactly.
#pragma once

#include <optional>

#include "runtime/plan/tile_plan.h"

namespace vicinal::plan {

// Over all slices. Pairs of partial tiles are found by halving what is mixed; nothing where that takes more
// than `most_looks` evaluations.
std::optional<double> count_kept_pairs(const TilePlan& plan, const Masks& masks, unsigned threads,
                                       std::int64_t most_looks);

}  // namespace vicinal::plan
