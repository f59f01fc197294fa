// The scheduler warp: which tiles of queries the block takes, and which tiles of keys each of them visits. It
// runs ahead of the producer, so that nobody waits for the index arithmetic.
#pragma once

#include "vicinal/hopper/layout.cuh"
#include "vicinal/tile_row.cuh"
#include "vicinal/tokens.cuh"

namespace vicinal::hopper {

template <Variant V, int HeadDim, int ValueDim, class Schedule>
class Scheduler {
  using L = Layout<V, HeadDim, ValueDim, Schedule>;
  using Control = typename L::Control;
  static constexpr int kRank = V::rank;
  static constexpr int kTileK = L::kTileK;

 public:
  VICINAL_DEVICE Scheduler(const LaunchArguments<typename V::Arguments>& arguments, Control& c)
      : launch(arguments), a(arguments.forward), control(c) {}

  // By one warp.
  VICINAL_DEVICE void run() {
    const u32 rows = static_cast<u32>(a.tiles.rows), items = rows * static_cast<u32>(a.batch * a.heads);
    u32 item = blockIdx.x;
    bool fresh = true;  // nobody has seen the item yet
#pragma unroll 1
    for (Place<kWorkSlots> slot;; slot.advance()) {
      // One tile ahead and no more: what is taken early cannot go to a block that is free sooner.
      if (lane() == 0) barrier_wait(shared_address(&control.work_empty[slot.stage()]), slot.parity() ^ 1);
      __syncwarp();
      Work<kRank> work;
#pragma unroll 1
      do {
        if (!fresh) item = next(item);
        fresh = false;
      } while (item < items && !fill(work, item, rows));
      work.exists = item < items;
      if (lane() == 0) {
        control.work[slot.stage()] = work;
        barrier_arrive(shared_address(&control.work_full[slot.stage()]));
      }
      if (!work.exists) break;
    }
    if (lane() == 0 && launch.counters != nullptr) hand_back_counters();
  }

 private:
  VICINAL_DEVICE u32 next(u32 item) const {
    if (launch.counters == nullptr) return item + gridDim.x;
    u32 drawn = 0;
    if (lane() == 0) drawn = atomicAdd(launch.counters, 1);
    return gridDim.x + __shfl_sync(~0u, drawn, 0);
  }

  // Rows from the last on: under a causal mask it has the most to do, and what is long should start early.
  // False where a dilation group has fewer tiles than the largest: no query then.
  VICINAL_DEVICE bool fill(Work<kRank>& work, u32 item, u32 rows) const {
    const u32 slices = static_cast<u32>(a.batch * a.heads), section = static_cast<u32>(launch.section),
              whole = section * rows;
    const u32 before = item / whole * section, inside = item - before * rows;
    const u32 heads = section < slices - before ? section : slices - before;
    const u32 slice = before + inside % heads;
    const int number = static_cast<int>(rows - 1 - inside / heads);
    work.b = static_cast<int>(slice / static_cast<u32>(a.heads));
    work.h = static_cast<int>(slice - work.b * static_cast<u32>(a.heads));
    work.kv_h = work.h * static_cast<int>(a.kv_heads) / static_cast<int>(a.heads);
    const Axis axis = V::axis(a, 0);
    const Stretch queries = row_stretch(axis, static_cast<int>(a.q_axis[0].origin),
                                        static_cast<int>(a.q_axis[0].local), L::kTileQ, number);
    if (queries.count <= 0) return false;
    const int k_origin = static_cast<int>(a.k_axis[0].origin), k_local = static_cast<int>(a.k_axis[0].local);
    const Span keys =
        V::neighborhood ? key_span(axis, queries, k_origin, k_local) : whole_span(k_origin, k_local);
    work.queries[0] = queries;
    work.begin = keys.begin;
    work.grid_tiles = keys.tiles(kTileK);
    work.context_tiles = V::has_context ? tile_count(static_cast<int>(a.context), kTileK) : 0;
    work.first_run = work.last_run = 0;
    if (V::has_mask && a.tiles.row_runs != nullptr) {
      const RowRuns runs = a.tiles.row_runs[slice_of(a.tiles, work.b, work.h) * a.tiles.rows + number];
      work.first_run = runs.first;
      work.last_run = runs.last;
      // Nothing beside what is listed.
      if (runs.first == runs.last) work.grid_tiles = work.context_tiles = 0;
    } else if constexpr (V::has_limits) {
      const KeyLimits limits = limits_of(queries, work.b, work.h);
      work.begin = larger(work.begin, limits.begin);
      work.grid_tiles = tile_count(smaller(keys.end, limits.end) - work.begin, kTileK);
    }
    return true;
  }

  // What the limits of the tile's queries have in reach together.
  VICINAL_DEVICE KeyLimits limits_of(const Stretch& queries, int b, int h) const {
    KeyLimits reach = {2147483647, 0};
    if constexpr (V::has_limits) {
#pragma unroll 1
      for (int r = lane(); r < queries.count; r += 32) {
        Token<kRank> token;
        token.local[0] = queries.first - static_cast<int>(a.q_axis[0].origin) + r;
        const KeyLimits keys = V::limits(a, query_of<V>(a, b, h, token));
        if (keys.begin >= keys.end) continue;
        reach.begin = smaller(reach.begin, keys.begin);
        reach.end = larger(reach.end, keys.end);
      }
      reach.begin = __reduce_min_sync(~0u, reach.begin);
      reach.end = __reduce_max_sync(~0u, reach.end);
    }
    return reach;
  }

  // The last block to end leaves both counters at 0 for the next launch.
  VICINAL_DEVICE void hand_back_counters() const {
    if (atomicAdd(launch.counters + 1, 1) != gridDim.x - 1) return;
    launch.counters[0] = 0;
    launch.counters[1] = 0;
  }

  const LaunchArguments<typename V::Arguments>& launch;
  const typename V::Arguments& a;
  Control& control;
};

}  // namespace vicinal::hopper
