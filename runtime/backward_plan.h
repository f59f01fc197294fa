// Which tiles the kernels of backward and of forward mode visit: those of a plan cut as they are, and, for
// the gradients of keys, those of the transposed one.
#pragma once

#include "runtime/cuda/context.h"
#include "runtime/cuda/device_memory.h"
#include "runtime/tile_words.h"

namespace vicinal::runtime {

// As a kernel walks them.
struct BackwardTiles {
  cuda::TileWords queries, keys;  // by the side that owns the rows
};
// All in reach.
BackwardTiles backward_tiles(const Problem& problem, const plan::TileShape& shape);

struct BackwardPlan {
  plan::TilePlan queries, keys;
  BackwardTiles tiles;
  cuda::DeviceBuffer memory[4];  // the lists', where they are on a device

  std::size_t bytes() const;  // of the lists
};
// In host memory; nothing where neighborhoods alone decide. `problem` must outlive it.
Result<std::optional<BackwardPlan>> plan_backward(const plan::Masks& masks, const Problem& problem,
                                                  const plan::TileShape& shape, unsigned threads);
// Makes the lists known to kernels, where they lie: a row's runs, and all runs, of either plan.
struct ListAddresses {
  cuda::DevicePointer row_runs = 0, runs = 0;
};
void place_lists(BackwardPlan& plan, const Problem& problem, const plan::TileShape& shape,
                 const ListAddresses& queries, const ListAddresses& keys);
// In the context, which must be current.
Result<void> upload_lists(BackwardPlan& plan, const Problem& problem, const plan::TileShape& shape,
                          const cuda::Context& context);

}  // namespace vicinal::runtime
