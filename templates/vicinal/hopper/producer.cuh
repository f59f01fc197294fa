// The producer warp: which tiles of queries the block takes, which tiles of keys each of them visits, and the
// copies that bring both into shared memory ahead of the consumers.
#pragma once

#include "vicinal/hopper/exact_rows.cuh"
#include "vicinal/hopper/layout.cuh"
#include "vicinal/tile_row.cuh"

namespace vicinal::hopper {

// The tiles of keys of one tile of queries, the last one first: under a causal mask it is the diagonal that
// is partial and that all of its consumers keep something of.
template <class V, int TileK>
class TileWalk {
 public:
  // `limits`: keys that some query of the tile keeps, where nothing is listed.
  VICINAL_DEVICE TileWalk(const typename V::Arguments& arguments, const TileRow<V::rank>& tile_row,
                          int number, int b, int h, const KeyLimits& limits)
      : a(arguments), row(tile_row), listed(V::has_mask && arguments.tiles.row_runs != nullptr) {
    begin = row.span[0].begin;
    grid_tiles = static_cast<int>(row.grid_tiles);
    if (listed) {
      const RowRuns runs = a.tiles.row_runs[slice_of(a.tiles, b, h) * a.tiles.rows + number];
      first_run = runs.first;
      run = runs.last;
      at = last = 0;
    } else {
      if constexpr (V::has_limits) {
        begin = larger(begin, limits.begin);
        grid_tiles = tile_count(smaller(row.span[0].end, limits.end) - begin, TileK);
      }
      last = 0;
      at = grid_tiles + (static_cast<int>(row.all_tiles) - static_cast<int>(row.grid_tiles));
      first_run = run = 0;
    }
    advance();
  }

  VICINAL_DEVICE bool done() const { return ended; }
  VICINAL_DEVICE bool context() const { return V::has_context && at >= grid_tiles; }
  // Position of the tile's first key.
  VICINAL_DEVICE int first() const { return context() ? (at - grid_tiles) * TileK : begin + at * TileK; }
  // Whether the mask has to be asked.
  VICINAL_DEVICE bool partial() const {
    if (listed) return !full;
    if (context()) return V::has_context_keeps || first() + TileK > static_cast<int>(a.context);
    return V::has_keeps;
  }

  VICINAL_DEVICE void advance() {
    if (at == last) {
      if (run == first_run) {
        ended = true;
        return;
      }
      const TileRun next = a.tiles.runs[--run];
      last = static_cast<int>(next.begin);
      at = static_cast<int>(next.end_and_full >> 1);
      full = next.end_and_full & 1;
    }
    --at;
  }

 private:
  const typename V::Arguments& a;
  const TileRow<V::rank>& row;
  const bool listed;
  bool ended = false, full = false;
  int begin, grid_tiles;
  u32 first_run, run;
  int at, last;  // tiles [last, at) of the run are still to come
};

template <Variant V, int HeadDim, int ValueDim, class Schedule>
class Producer {
  using L = Layout<V, HeadDim, ValueDim, Schedule>;
  using Control = typename L::Control;
  static constexpr int kRank = V::rank;
  static constexpr int kTileK = L::kTileK;

 public:
  VICINAL_DEVICE Producer(const LaunchArguments<typename V::Arguments>& arguments, u32 shared, Control& c)
      : launch(arguments), a(arguments.forward), base(shared), control(c) {}

  // By one warp; its first lane copies.
  VICINAL_DEVICE void run() {
    const u32 rows = static_cast<u32>(a.tiles.rows), slices = static_cast<u32>(a.batch * a.heads);
    u32 item = blockIdx.x;
    Place<kWorkSlots> slot;
    Place<1> q;
#pragma unroll 1
    for (;;) {
      if (lane() == 0) barrier_wait(shared_address(&control.work_empty[slot.stage]), slot.parity ^ 1);
      __syncwarp();
      Work<kRank>& work = control.work[slot.stage];
      if (item >= rows * slices) {
        if (lane() == 0) {
          work.exists = 0;
          barrier_arrive(shared_address(&control.work_full[slot.stage]));
        }
        break;
      }
      u32 next = item + gridDim.x;
      if (launch.counters != nullptr && lane() == 0) next = gridDim.x + atomicAdd(launch.counters, 1);

      // Rows from the last on: under a causal mask it has the most to do, and what is long should start
      // early.
      const u32 section = static_cast<u32>(launch.section), whole = section * rows;
      const u32 before = item / whole * section, inside = item - before * rows;
      const u32 heads = section < slices - before ? section : slices - before;
      const u32 slice = before + inside % heads;
      const int number = static_cast<int>(rows - 1 - inside / heads);
      const int b = static_cast<int>(slice / static_cast<u32>(a.heads));
      const int h = static_cast<int>(slice - b * static_cast<u32>(a.heads));
      TileRow<kRank> row;
      row.template place<V>(a, number, kTileK);
      if (row.has_query()) {
        const KeyLimits limits = limits_of(row, b, h);
        // The first lane copies; where columns are staged, the others follow its walk.
        if (V::has_columns || lane() == 0) {
          TileWalk<V, kTileK> walk(a, row, number, b, h, limits);
          if (lane() == 0) {
            work.exists = 1;
            work.b = b;
            work.h = h;
            work.tiles = !walk.done();
#pragma unroll
            for (int i = 0; i < kRank; ++i) work.queries[i] = row.queries[i];
            barrier_arrive(shared_address(&control.work_full[slot.stage]));
          }
          copy(walk, row, b, h, q);
        }
        slot.advance();
        q.advance();
      }
      item = __shfl_sync(~0u, next, 0);
    }
    if (lane() == 0 && launch.counters != nullptr) hand_back_counters();
  }

 private:
  VICINAL_DEVICE static int lane() {
    return static_cast<int>(threadIdx.x) % 32;
  }

  // What the limits of the tile's queries have in reach together.
  VICINAL_DEVICE KeyLimits limits_of(const TileRow<kRank>& row, int b, int h) const {
    KeyLimits reach = {2147483647, 0};
    if constexpr (V::has_limits) {
      if (a.tiles.row_runs != nullptr) return reach;
#pragma unroll 1
      for (int r = lane(); r < row.queries[0].count; r += 32) {
        Token<kRank> token;
        token.local[0] = row.queries[0].first - static_cast<int>(a.q_axis[0].origin) + r;
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

  VICINAL_DEVICE void copy(TileWalk<V, kTileK>& walk, const TileRow<kRank>& row, int b, int h,
                           const Place<1>& q) {
    const int kv_h = h / (static_cast<int>(a.heads) / static_cast<int>(a.kv_heads));
    // Values follow one tile behind the keys, as their products do.
    bool first = true, behind_context = false;
    int behind = 0;
#pragma unroll 1
    while (!walk.done()) {
      const int position = walk.first();
      const bool context = walk.context();
      u32 flags = (walk.partial() ? kPartial : 0) | (context ? kContext : 0);
      walk.advance();
      if (walk.done()) flags |= kLast;
      if (lane() == 0) {
        copy_keys(position, flags, kv_h, b);
        if (first) {
          copy_queries(row, b, h, q);
        } else {
          copy_values(behind, behind_context, kv_h, b);
        }
      }
      if constexpr (V::has_columns) stage_columns(position, context, b, h, kv_h);
      key.advance();
      if (!first) value.advance();
      first = false;
      behind = position;
      behind_context = context;
    }
    if (first) {
      if (lane() == 0) copy_queries(row, b, h, q);
    } else {
      if (lane() == 0) copy_values(behind, behind_context, kv_h, b);
      value.advance();
    }
  }

  // The stage is free: the first lane has waited for that before it copied.
  VICINAL_DEVICE void stage_columns(int position, bool context, int b, int h, int kv_h) {
    __syncwarp();
    if (!context) {
      Query<kRank> q = {};
      q.b = b;
      q.h = h;
      q.kv_h = kv_h;
      const int end = static_cast<int>(a.k_axis[0].origin + a.k_axis[0].local);
#pragma unroll 1
      for (int i = lane(); i < kTileK && position + i < end; i += 32) {
        Key<kRank> k;
        k.position = k.coordinate[0] = position + i;
        control.column[key.slot()][i] = V::column(a, q, k);
      }
    }
    __syncwarp();
    if (lane() == 0) barrier_arrive(shared_address(&control.k_full[key.stage]));
  }

  VICINAL_DEVICE void copy_queries(const TileRow<kRank>& row, int b, int h, const Place<1>& q) {
    const u32 full = shared_address(&control.q_full);
    barrier_wait(shared_address(&control.q_empty), q.parity ^ 1);
    barrier_expect(full, L::kQueryBytes);
    const int x = row.queries[0].first - static_cast<int>(a.q_axis[0].origin);
#pragma unroll
    for (int slab = 0; slab < L::kHeadSlabs; ++slab)
      copy_box(base + L::kQueries + slab * L::kTileQ * kSlabRowBytes, &launch.maps.q,
               {slab * kSlabChannels, x, 0, h, b}, full, kEvictFirst);
  }

  VICINAL_DEVICE void copy_keys(int position, u32 flags, int kv_h, int b) {
    const u32 full = shared_address(&control.k_full[key.stage]);
    barrier_wait(shared_address(&control.k_empty[key.stage]), key.parity ^ 1);
    control.note[key.slot()] = {position, flags};
    barrier_expect(full, L::kKeyBytes);
    copy_rows<L::kHeadSlabs>(flags & kContext ? &launch.maps.context_k : &launch.maps.k,
                             base + L::kKeys + key.stage * L::kKeyBytes, local(position, flags & kContext),
                             kv_h, b, full);
  }

  VICINAL_DEVICE void copy_values(int position, bool context, int kv_h, int b) {
    const u32 full = shared_address(&control.v_full[value.stage]);
    barrier_wait(shared_address(&control.v_empty[value.stage]), value.parity ^ 1);
    barrier_expect(full, L::kValueBytes);
    copy_rows<L::kValueSlabs>(context ? &launch.maps.context_v : &launch.maps.v,
                              base + L::kValues + value.stage * L::kValueBytes, local(position, context),
                              kv_h, b, full);
    value.advance();
  }

  VICINAL_DEVICE int local(int position, bool context) const {
    return V::has_context && context ? position : position - static_cast<int>(a.k_axis[0].origin);
  }

  template <int Slabs>
  VICINAL_DEVICE void copy_rows(const TensorMap* map, u32 to, int x, int kv_h, int b, u32 full) const {
#pragma unroll
    for (int slab = 0; slab < Slabs; ++slab)
      copy_box(to + slab * kTileK * kSlabRowBytes, map, {slab * kSlabChannels, x, 0, kv_h, b}, full,
               kEvictLast);
  }

  // The last block to end leaves both counters at 0 for the next launch.
  VICINAL_DEVICE void hand_back_counters() const {
    if (atomicAdd(launch.counters + 1, 1) != gridDim.x - 1) return;
    launch.counters[0] = 0;
    launch.counters[1] = 0;
  }

  const LaunchArguments<typename V::Arguments>& launch;
  const typename V::Arguments& a;
  const u32 base;
  Control& control;
  Place<L::kStages> key, value;
};

}  // namespace vicinal::hopper
