// What a mask says of a row's keys as a whole: where the kept ones begin and end, and whether there are any.
#pragma once

#include "compiler/analysis/whole_sum.h"

namespace vicinal::analysis {

// A row keeps a key exactly where all of it holds.
struct RowLimits {
  std::vector<RowSum> begins;          // k >= each
  std::vector<RowSum> ends;            // k < each
  std::vector<ir::NodeId> conditions;  // do not vary with the key: all hold, or the row keeps nothing
  std::vector<ir::NodeId> rest;        // conjuncts that are none of these
};

// Of Root::mask; empty where there is none or it is true. `module` as the grid's keys see it. A conjunct may
// stand in `rest` though parts of it are limits.
RowLimits row_limits(const ir::Module& module);

}  // namespace vicinal::analysis
