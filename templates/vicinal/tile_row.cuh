// One row of a tile plan as a kernel meets it: the queries of a tile, and the tiles of keys in their reach.
// Tiles of keys are numbered with the last axis fastest; the context's follow the grid's.
#pragma once

#include "vicinal/tiles.cuh"

namespace vicinal {

// The last digit of a number in mixed radix, which is taken off it. The first digit is what is left: no
// division, which takes dozens of instructions.
VICINAL_DEVICE int take_digit(int& number, int radix, bool first) {
  if (first) return number;
  const int digit = number % radix;
  number /= radix;
  return digit;
}

template <int Rank>
struct TileRow {
  Stretch queries[Rank];
  Span span[Rank];            // of the keys in their reach
  int tiles[Rank];            // of keys, along each axis
  u32 grid_tiles, all_tiles;  // of keys; without and with the context's

  // V: an emitted variant. A tile of the context has `context_tile` keys.
  template <class V>
  VICINAL_DEVICE void place(const typename V::Arguments& a, int number, int context_tile) {
    grid_tiles = 1;
#pragma unroll
    for (int i = Rank - 1; i >= 0; --i) {
      const Axis axis = V::axis(a, i);
      const int local = static_cast<int>(a.q_axis[i].local), tile = static_cast<int>(a.tiles.q[i]);
      const int along = rows_along(axis, local, tile);
      queries[i] = row_stretch(axis, static_cast<int>(a.q_axis[i].origin), local, tile,
                               take_digit(number, along, i == 0));
      const int k_origin = static_cast<int>(a.k_axis[i].origin),
                k_local = static_cast<int>(a.k_axis[i].local);
      span[i] = V::neighborhood && queries[i].count > 0 ? key_span(axis, queries[i], k_origin, k_local)
                                                        : whole_span(k_origin, k_local);
      tiles[i] = span[i].tiles(static_cast<int>(a.tiles.k[i]));
      grid_tiles *= tiles[i];
    }
    all_tiles = grid_tiles + (V::has_context ? tile_count(static_cast<int>(a.context), context_tile) : 0);
  }

  // False where a dilation group has fewer tiles than the largest.
  VICINAL_DEVICE bool has_query() const {
    bool any = true;
#pragma unroll
    for (int i = 0; i < Rank; ++i) any = any && queries[i].count > 0;
    return any;
  }

  // Of a tile of the grid's keys, its place along each axis.
  VICINAL_DEVICE void digits(int number, int (&at)[Rank]) const {
#pragma unroll
    for (int i = Rank - 1; i >= 0; --i) at[i] = take_digit(number, tiles[i], i == 0);
  }

  // Whether every query sees every key of a tile of the grid's, and that one is whole.
  VICINAL_DEVICE bool full(const TileArguments<Rank>& shape, int number) const {
    int at[Rank];
    digits(number, at);
    bool all = true;
#pragma unroll
    for (int i = 0; i < Rank; ++i) all = all && span[i].full(static_cast<int>(shape.k[i]), at[i]);
    return all;
  }
};

// Batches and heads whose masks are the same share a slice of the list.
template <int Rank>
VICINAL_DEVICE i64 slice_of(const TileArguments<Rank>& tiles, int b, int h) {
  return b * tiles.slice_batch + h / static_cast<int>(tiles.heads_per_slice) * tiles.slice_head;
}

}  // namespace vicinal
