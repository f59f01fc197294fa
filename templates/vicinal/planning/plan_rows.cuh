// Plans tiles on the device: which tiles of keys each tile of queries visits, from the mask's own expression
// evaluated over boxes. What it writes is read by the next kernel on the stream; the host never waits.
//
// A warp plans a row. Along a sequence its lanes first ask about 32 tiles each, then, where that leaves
// doubt, about one tile each; along several axes about one tile each at once. A row whose runs do not fit is
// written as one run of all its tiles, each to be masked, which is always right.
#pragma once

#include "vicinal/planning/asked.cuh"

namespace vicinal::planning {

template <PlannedVariant V>
class RowPlanner {
  static constexpr int kRank = V::rank;

 public:
  VICINAL_DEVICE RowPlanner(const typename V::Arguments& arguments, i64 slice, int number)
      : a(arguments), row_at(slice * arguments.tiles.rows + number) {
    int context_tile = 1;
#pragma unroll
    for (int i = 0; i < kRank; ++i) context_tile *= static_cast<int>(a.tiles.k[i]);
    row.template place<V>(a, number, context_tile);
    if (!row.has_query()) return;
    queries = query_box<V>(a, slice, row.queries);
    walk(0, row.grid_tiles, kRank == 1, [&](int tile, int count) { return grid_tiles(tile, count); });
    if constexpr (V::has_context) {
      walk(row.grid_tiles, row.all_tiles - row.grid_tiles, true, [&](int tile, int count) {
        const int first = tile * context_tile, end = static_cast<int>(a.context);
        KeyBox<kRank> keys = {};  // a context key has no coordinates, and nothing reads them
        keys.position = tokens({first, min(count * context_tile, end - first)}, 1);
        return kept_of(asked<V, true>(a, queries, keys), first + count * context_tile <= end);
      });
    }
  }

  // The row's place in the list.
  VICINAL_DEVICE void finish() {
    flush();
    const auto first = static_cast<u32>(row_at * a.tiles.run_capacity);
    const bool fits = runs <= a.tiles.run_capacity;
    if (lane() != 0) return;
    if (!fits) a.tiles.runs[first] = {0, row.all_tiles << 1};
    a.tiles.row_runs[row_at] = {first, first + (fits ? runs : 1)};
  }

 private:
  // `count` tiles along the one axis, or one tile along several.
  VICINAL_DEVICE Kept grid_tiles(int number, int count) const {
    int at[kRank];
    row.digits(number, at);
    KeyBox<kRank> keys;
    bool clear = true;
#pragma unroll
    for (int i = 0; i < kRank; ++i) {
      const Span& span = row.span[i];
      const Axis axis = V::axis(a, i);
      const int size = count * static_cast<int>(a.tiles.k[i]);
      const int from = span.position(static_cast<int>(a.tiles.k[i]), at[i]);
      keys.coordinate[i] =
          tokens({coordinate_at(axis, span, from), min(size, span.end - from)}, axis.dilation);
      clear = clear && from >= span.sure_begin && from + size <= span.sure_end;
    }
    keys.position = flattened(keys.coordinate, a.k_axis);
    return kept_of(asked<V, false>(a, queries, keys), clear);
  }

  // Tiles [first, first + tiles) of the row. kept(tile, count) is asked about tiles from 0 on.
  template <class Ask>
  VICINAL_DEVICE void walk(u32 first, int tiles, bool coarse, const Ask& kept) {
    const int lanes_tiles = coarse ? kLanes : 1;
#pragma unroll 1
    for (int base = 0; base < tiles; base += kLanes * lanes_tiles) {
      const int from = base + lane() * lanes_tiles;
      const Kept mine = from < tiles ? kept(from, min(lanes_tiles, tiles - from)) : Kept::none;
      const u32 all = __ballot_sync(~0u, mine == Kept::all), some = __ballot_sync(~0u, mine == Kept::some);
      if (!coarse) {
        append_word(first + base, all | some, all);
        continue;
      }
#pragma unroll 1
      for (u32 left = all | some; left != 0; left &= left - 1) {
        const int lane_of = __ffs(left) - 1, chunk = base + lane_of * kLanes;
        if (all >> lane_of & 1) {
          append(first + chunk, first + min(chunk + kLanes, tiles), true);
          continue;
        }
        const int tile = chunk + lane();
        const Kept one = tile < tiles ? kept(tile, 1) : Kept::none;
        const u32 fine_all = __ballot_sync(~0u, one == Kept::all);
        append_word(first + chunk, fine_all | __ballot_sync(~0u, one == Kept::some), fine_all);
      }
    }
  }

  // The bits of 32 tiles, as runs.
  VICINAL_DEVICE void append_word(u32 first, u32 visited, u32 full) {
#pragma unroll 1
    while (visited != 0) {
      const int begin = __ffs(visited) - 1;
      const bool is_full = full >> begin & 1;
      const u32 after = ~((is_full ? full : visited & ~full) >> begin);  // 0 where the run goes on
      const int length = after == 0 ? kLanes : __ffs(after) - 1;
      append(first + begin, first + begin + length, is_full);
      visited &= begin + length >= kLanes ? 0 : ~0u << (begin + length);
    }
  }

  // The next tiles of the row; neighbours of one kind are joined.
  VICINAL_DEVICE void append(u32 begin, u32 end, bool full) {
    if (pending.end_and_full == (begin << 1 | (full ? 1u : 0u)) && pending.begin != begin) {
      pending.end_and_full = end << 1 | (full ? 1u : 0u);
      return;
    }
    flush();
    pending = {begin, end << 1 | (full ? 1u : 0u)};
  }
  VICINAL_DEVICE void flush() {
    if (pending.begin == pending.end_and_full >> 1) return;
    if (lane() == 0 && runs < a.tiles.run_capacity)
      a.tiles.runs[row_at * a.tiles.run_capacity + runs] = pending;
    ++runs;
    pending = {};
  }

  const typename V::Arguments& a;
  i64 row_at;
  TileRow<kRank> row;
  QueryBox<kRank> queries;
  TileRun pending = {};  // not yet written; without tiles at first
  u32 runs = 0;
};

// By blocks of kThreads threads, a warp a row.
template <PlannedVariant V>
VICINAL_DEVICE void plan_rows(const typename V::Arguments& a) {
  const i64 row = warp_of_grid();
  if (row >= slices<V>(a) * a.tiles.rows) return;
  RowPlanner<V>(a, row / a.tiles.rows, static_cast<int>(row % a.tiles.rows)).finish();
}

}  // namespace vicinal::planning
