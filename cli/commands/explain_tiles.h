// vicinal explain tiles: which tiles of a problem are skipped, which need their mask, and what that saves.
#pragma once

#include "cli/problem.h"
#include "runtime/binding/problem.h"

namespace vicinal::cli {

struct TilesOptions {
  const ProblemOptions& problem;
  std::string tile, query, key, png;  // tile: empty: chosen
  std::int64_t batch = 0, head = 0;
  bool transposed = false, json = false;
};
Result<int> explain_tiles(const Spec& spec, const TilesOptions& options);

// The token with the coordinates of `--query 3,5`; `option` is what errors call it.
Result<std::int64_t> token_at(const std::string& option, const std::string& coordinates,
                              const std::vector<runtime::GridAxis>& axes);

}  // namespace vicinal::cli
