// A side's tokens cut into boxes on a grid: of the queries, or of the keys. Along an axis a box has
// neighbouring tokens of one dilation group, and boxes are numbered group by group; over the axes with the
// last one fastest, and so are the tokens of a box. Tokens and origins count from the first token at hand.
#pragma once

#include "vicinal/tile_row.cuh"
#include "vicinal/tokens.cuh"

namespace vicinal {

template <class V>
class BoxGrid {
  static constexpr int kRank = V::rank;

 public:
  VICINAL_DEVICE BoxGrid(const typename V::Arguments& arguments, const GridAxis (&grid)[kRank],
                         const i64 (&box)[kRank])
      : a(arguments), axis(grid), extents(box) {}

  VICINAL_DEVICE int extent(int i) const { return static_cast<int>(extents[i]); }
  VICINAL_DEVICE int local(int i) const { return static_cast<int>(axis[i].local); }
  VICINAL_DEVICE int global(int i) const { return static_cast<int>(axis[i].origin); }
  VICINAL_DEVICE int along(int i) const { return rows_along(V::axis(a, i), local(i), extent(i)); }
  // Of a dilation group; the first groups come first.
  VICINAL_DEVICE int along_group(int i) const { return rows_per_group(V::axis(a, i), local(i), extent(i)); }
  VICINAL_DEVICE int count() const {
    int all = 1;
#pragma unroll
    for (int i = 0; i < kRank; ++i) all *= along(i);
    return all;
  }
  VICINAL_DEVICE int number(const int (&place)[kRank]) const {
    int n = 0;
#pragma unroll
    for (int i = 0; i < kRank; ++i) n = n * along(i) + place[i];
    return n;
  }
  VICINAL_DEVICE void place(int number, int (&at)[kRank]) const {
#pragma unroll
    for (int i = kRank - 1; i >= 0; --i) at[i] = take_digit(number, along(i), i == 0);
  }
  // The box's coordinates along an axis; fewer than its extent, or none, at the end of a group.
  VICINAL_DEVICE Stretch stretch(int i, int at) const {
    return row_stretch(V::axis(a, i), global(i), local(i), extent(i), at);
  }
  VICINAL_DEVICE void origin(const int (&at)[kRank], int (&token)[kRank]) const {
#pragma unroll
    for (int i = 0; i < kRank; ++i) token[i] = stretch(i, at[i]).first - global(i);
  }
  // The r-th token of the box at that place; false where there is none, and then one that there is.
  VICINAL_DEVICE bool token(const int (&at)[kRank], int r, Token<kRank>& token) const {
    bool exists = true;
#pragma unroll
    for (int i = kRank - 1; i >= 0; --i) {
      const Stretch s = stretch(i, at[i]);
      const int digit = take_digit(r, extent(i), i == 0);
      exists = exists && digit < s.count;
      token.local[i] =
          smaller(s.first - global(i) + larger(smaller(digit, s.count - 1), 0) * V::axis(a, i).dilation,
                  local(i) - 1);
    }
    return exists;
  }

 private:
  const typename V::Arguments& a;
  const GridAxis (&axis)[kRank];
  const i64 (&extents)[kRank];
};

template <class V>
VICINAL_DEVICE BoxGrid<V> query_boxes(const typename V::Arguments& a) {
  return {a, a.q_axis, a.tiles.q};
}
template <class V>
VICINAL_DEVICE BoxGrid<V> key_boxes(const typename V::Arguments& a) {
  return {a, a.k_axis, a.tiles.k};
}

}  // namespace vicinal
