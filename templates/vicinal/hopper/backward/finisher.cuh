// The warps of the backward pass that write the gradients of tiles of queries to which all have added.
#pragma once

#include "vicinal/hopper/backward/layout.cuh"
#include "vicinal/hopper/backward/query_sums.cuh"

namespace vicinal::hopper::backward {

// By one warp, the number-th finisher.
template <Variant V, class T, int HeadDim, int TileQ, class Control>
VICINAL_DEVICE void finish_sums(const LaunchArguments<typename V::Arguments>& launch, Control& control,
                                int number) {
  const SumsReader<V, T, HeadDim, TileQ> reader(launch);
  Place<kCompleteSlots> complete;
#pragma unroll 1
  for (int i = 0; i < number; ++i) complete.advance();
#pragma unroll 1
  for (;;) {
    barrier_wait(shared_address(&control.complete_full[complete.stage()]), complete.parity());
    const i64 tile = control.complete[complete.stage()];
    release(control.complete_empty[complete.stage()]);
    if (tile == kNoTile) break;
    acquire_fence();
    reader.finish(tile, true);
#pragma unroll
    for (int i = 0; i < kFinishers; ++i) complete.advance();
  }
}

}  // namespace vicinal::hopper::backward
