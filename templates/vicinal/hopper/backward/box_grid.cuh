// A side's tokens cut into boxes on a grid: of the queries, or of the keys. Boxes are numbered with the last
// axis fastest, and so are the tokens of a box. Coordinates count from the first token at hand.
#pragma once

#include "vicinal/tile_row.cuh"
#include "vicinal/tokens.cuh"

namespace vicinal::hopper::backward {

template <int Rank>
class BoxGrid {
 public:
  VICINAL_DEVICE BoxGrid(const GridAxis (&grid)[Rank], const i64 (&box)[Rank]) : axis(grid), extents(box) {}

  VICINAL_DEVICE int extent(int i) const { return static_cast<int>(extents[i]); }
  VICINAL_DEVICE int local(int i) const { return static_cast<int>(axis[i].local); }
  VICINAL_DEVICE int along(int i) const { return tile_count(local(i), extent(i)); }
  VICINAL_DEVICE int count() const {
    int all = 1;
#pragma unroll
    for (int i = 0; i < Rank; ++i) all *= along(i);
    return all;
  }
  VICINAL_DEVICE int number(const int (&place)[Rank]) const {
    int n = 0;
#pragma unroll
    for (int i = 0; i < Rank; ++i) n = n * along(i) + place[i];
    return n;
  }
  VICINAL_DEVICE void place(int number, int (&at)[Rank]) const {
#pragma unroll
    for (int i = Rank - 1; i >= 0; --i) at[i] = take_digit(number, along(i), i == 0);
  }
  // The r-th token of the box at that place; false where there is none, and then the last one there is along
  // each axis.
  VICINAL_DEVICE bool token(const int (&at)[Rank], int r, Token<Rank>& token) const {
    bool exists = true;
#pragma unroll
    for (int i = Rank - 1; i >= 0; --i) {
      const int x = at[i] * extent(i) + take_digit(r, extent(i), i == 0);
      exists = exists && x < local(i);
      token.local[i] = smaller(x, local(i) - 1);
    }
    return exists;
  }

 private:
  const GridAxis (&axis)[Rank];
  const i64 (&extents)[Rank];
};

template <class V>
VICINAL_DEVICE BoxGrid<V::rank> query_boxes(const typename V::Arguments& a) {
  return {a.q_axis, a.tiles.q};
}
template <class V>
VICINAL_DEVICE BoxGrid<V::rank> key_boxes(const typename V::Arguments& a) {
  return {a.k_axis, a.tiles.k};
}

}  // namespace vicinal::hopper::backward
