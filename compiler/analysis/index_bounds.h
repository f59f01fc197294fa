// Which indices of captured inputs are in range: always, given a relation between extents, or not to be told.
#pragma once

#include <vector>

#include "compiler/analysis/linear.h"

namespace vicinal::analysis {

// Holds when difference is at least 0 (or, for equality, 0); evaluated at launch.
struct LaunchCheck {
  Linear difference;
  bool equality = false;
  std::string message;  // what the user is told when it fails
};

struct IndexFinding {
  ir::NodeId node;  // the load or dot
  std::size_t operand;
  std::uint32_t input;
};

struct IndexBounds {
  // By node: bit i says that operand i of a load or dot has to be clamped.
  std::vector<std::uint8_t> clamp;
  std::vector<LaunchCheck> checks;
  std::vector<IndexFinding> clamped, never;  // to be reported
};

// `module` after specialize_keys(module, context_key).
IndexBounds bound_indices(const ir::Module& module, bool context_key);

}  // namespace vicinal::analysis
