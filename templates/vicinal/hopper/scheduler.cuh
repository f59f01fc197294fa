// The scheduler warp: which tiles of queries the block takes, and which tiles of keys each of them visits. It
// runs ahead of the producer, so that nobody waits for the index arithmetic.
#pragma once

#include "vicinal/hopper/layout.cuh"
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
    const Piece piece =
        piece_of(item, static_cast<u32>(a.batch * a.heads), rows, static_cast<u32>(launch.section));
    const int number = near_first(static_cast<int>(rows - 1 - piece.tile));
    work.b = static_cast<int>(piece.slice / static_cast<u32>(a.heads));
    work.h = static_cast<int>(piece.slice - work.b * static_cast<u32>(a.heads));
    work.kv_h = work.h * static_cast<int>(a.kv_heads) / static_cast<int>(a.heads);
    TileRow<kRank>& row = work.row;
    row.template place<V>(a, number, kTileK);
    if (!row.has_query()) return false;
    work.first_run = work.last_run = 0;
    if (V::has_mask && a.tiles.row_runs != nullptr) {
      const RowRuns runs = a.tiles.row_runs[slice_of(a.tiles, work.b, work.h) * a.tiles.rows + number];
      work.first_run = runs.first;
      work.last_run = runs.last;
      // Nothing beside what is listed.
      if (runs.first == runs.last) row.grid_tiles = row.all_tiles = 0;
    } else if constexpr (V::has_limits) {
      const KeyLimits limits = limits_of(row.queries[0], work.b, work.h);
      Span& span = row.span[0];
      span.begin = larger(span.begin, limits.begin);
      span.end = larger(span.begin, smaller(span.end, limits.end));
      const u32 context_tiles = row.all_tiles - row.grid_tiles;
      row.tiles[0] = span.tiles(kTileK);
      row.grid_tiles = static_cast<u32>(row.tiles[0]);
      row.all_tiles = row.grid_tiles + context_tiles;
    }
    return true;
  }

  // The row of the n-th place in an order in which the first axis runs fastest: tiles that are visited at a
  // time then reach into as few keys as can be, which stay in the L2 cache.
  VICINAL_DEVICE int near_first(int n) const {
    if constexpr (kRank == 1) return n;
    int along[kRank], at[kRank], number = 0;
#pragma unroll
    for (int i = 0; i < kRank; ++i) {
      along[i] =
          rows_along(V::axis(a, i), static_cast<int>(a.q_axis[i].local), static_cast<int>(a.tiles.q[i]));
      at[i] = take_digit(n, along[i], i == kRank - 1);
    }
#pragma unroll
    for (int i = 0; i < kRank; ++i) number = number * along[i] + at[i];
    return number;
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
