// Tile plans as kernels read them.
#pragma once

#include "runtime/cuda/arguments_writer.h"
#include "runtime/cuda/driver_api.h"
#include "runtime/plan/tile_plan.h"

namespace vicinal::runtime {

// How a kernel walks the tiles of a shape, and which shape that is; without a list it visits all in reach.
cuda::TileWords tile_words(const Problem& problem, const plan::TileShape& shape);
plan::TileShape shape_of(const cuda::TileWords& words);
// With a list in device memory.
cuda::TileWords tile_words(const Problem& problem, const plan::TileShape& shape, const plan::Slices& slices,
                           cuda::DevicePointer row_runs, cuda::DevicePointer runs);

// A list as it lies there: of every slice and row where its runs start and end.
struct RowRuns {
  std::uint32_t first, last;
  friend bool operator==(const RowRuns&, const RowRuns&) = default;
};
std::vector<RowRuns> row_runs(const plan::TilePlan& plan);

}  // namespace vicinal::runtime
