// What a module's truth values are for pairs of which only the distance is known: that of neighbours, or none
// at all.
#pragma once

#include <optional>
#include <vector>

#include "compiler/analysis/set_value.h"

namespace vicinal::analysis {

// Key minus query.
struct Distances {
  ranges::Range position;           // of q and k
  std::vector<ranges::Range> axis;  // of q.t and k.t
};
// Of the pairs that the neighborhoods keep. Windows that are given at launch bound nothing.
Distances neighborhood_distances(const ir::Module& module);

// By node; any_truth() for what is no bool. `module` as the grid's keys see it. Sums of coordinates are
// followed as sums, so that q.t - k.t is one value and not two.
std::vector<ranges::Truth> truths(const ir::Module& module, const Distances& distances);

}  // namespace vicinal::analysis
