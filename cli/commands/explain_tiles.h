// vicinal explain tiles: which tiles of a problem are skipped, which need their mask, and what that saves.
#pragma once

#include "cli/problem.h"
#include "runtime/binding/problem.h"

namespace vicinal::cli {

struct TilesOptions {
  const ProblemOptions& problem;
  std::string tile, query, png;  // tile: empty: chosen
  std::int64_t batch = 0, head = 0;
  bool json = false;
};
Result<int> explain_tiles(const Spec& spec, const TilesOptions& options);

// The query with the coordinates of `--query 3,5`.
Result<std::int64_t> query_at(const std::string& coordinates, const runtime::Problem& problem);

}  // namespace vicinal::cli
