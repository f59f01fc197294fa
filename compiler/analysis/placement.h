// Which values of an expression are computed where: once for a launch, a row or a column of the score matrix,
// or for each element.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compiler/ir/module.h"

namespace vicinal::analysis {

enum class Place : std::uint8_t {
  launch,   // constants, params, extents, and what varies with nothing else
  row,      // varies with the batch, heads or the query, and not with the key
  column,   // varies with the key, and with the batch and heads at most
  element,  // varies with both, or with what is computed for a pair
};

struct Placement {
  std::vector<Place> place;  // by node
  // What is worth keeping: the largest values of either place that the roots are made of, in order. A row's
  // may be a bare symbol, or the same for the launch if it is not at hand. A column's is never k itself or
  // what an instruction or two make of it.
  std::vector<ir::NodeId> rows, columns;
};

// Roots that are not valid are left out. Without `keeps_columns` what varies with the key is an element's.
Placement place(const ir::Module& module, std::span<const ir::NodeId> roots, bool keeps_columns = true);

}  // namespace vicinal::analysis
