// Plans tiles where both sides' lie on grids: bits of the tiles of keys of which each tile of queries keeps
// some pair, and of those of which it keeps all. A warp asks for 32 tiles of keys at a time.
#pragma once

#include "vicinal/box_grid.cuh"
#include "vicinal/planning/asked.cuh"

namespace vicinal::planning {

template <PlannedVariant V>
class PairPlanner {
  static constexpr int kRank = V::rank;

 public:
  VICINAL_DEVICE explicit PairPlanner(const typename V::Arguments& arguments)
      : a(arguments), keys(key_boxes<V>(arguments)) {}

  // By one warp.
  VICINAL_DEVICE void plan(i64 slice, int number) {
    row.template place<V>(a, number, 1);
    const bool has_query = row.has_query();
    if (has_query) queries = query_box<V>(a, slice, row.queries);
    const int tiles = keys.count(), words = tile_count(tiles, kLanes);
    u32* const to = a.tiles.pairs + (slice * a.tiles.rows + number) * 2 * words;
#pragma unroll 1
    for (int word = 0; word < words; ++word) {
      const int tile = word * kLanes + lane();
      const Kept mine = has_query && tile < tiles ? kept(tile) : Kept::none;
      const u32 all = __ballot_sync(~0u, mine == Kept::all), some = __ballot_sync(~0u, mine == Kept::some);
      if (lane() != 0) continue;
      to[word] = some | all;
      to[words + word] = all;
    }
  }

 private:
  VICINAL_DEVICE Kept kept(int tile) const {
    int at[kRank];
    keys.place(tile, at);
    KeyBox<kRank> box;
    bool clear = true;
#pragma unroll
    for (int i = 0; i < kRank; ++i) {
      const Stretch own = keys.stretch(i, at[i]);
      const Axis axis = V::axis(a, i);
      const Span& span = row.span[i];
      if (own.count == 0 || (V::neighborhood && residue_of(axis, own) != span.residue)) return Kept::none;
      const int from = V::neighborhood ? group_position(axis, span.residue, own.first) : own.first,
                end = from + own.count;
      if (from >= span.end || end <= span.begin) return Kept::none;
      clear = clear && own.count == keys.extent(i) && from >= span.sure_begin && end <= span.sure_end;
      box.coordinate[i] = tokens(own, axis.dilation);
    }
    box.position = flattened(box.coordinate, a.k_axis);
    return kept_of(asked<V, false>(a, queries, box), clear);
  }

  const typename V::Arguments& a;
  const BoxGrid<V> keys;
  TileRow<kRank> row;
  QueryBox<kRank> queries;
};

// By blocks of kThreads threads, a warp a tile of queries.
template <PlannedVariant V>
VICINAL_DEVICE void plan_pairs(const typename V::Arguments& a) {
  const i64 row = warp_of_grid();
  if (row >= slices<V>(a) * a.tiles.rows) return;
  PairPlanner<V>(a).plan(row / a.tiles.rows, static_cast<int>(row % a.tiles.rows));
}

}  // namespace vicinal::planning
