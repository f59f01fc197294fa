// Tiles as boxes of a grid with several axes, or of one with a dilation: how the copy engine finds them in a
// tensor, and where in such a tile the columns of a product lie.
//
// The tokens of a tile follow each other with the last axis fastest. Along it a tile whose tokens are columns
// has a multiple of 8 of them, so that the 8 columns of a group, of which a thread has two (column_bits.cuh),
// differ along that axis alone.
#pragma once

#include "vicinal/hopper/column_bits.cuh"
#include "vicinal/hopper/contract.cuh"
#include "vicinal/ptx/warpgroup.cuh"
#include "vicinal/tile_row.cuh"

namespace vicinal::hopper {

// Where a box starts in a tensor: dimensions are channels, tokens with the last axis first, heads, batch; of
// three axes, heads and batch have a dimension together, or heads lie side by side among the channels.
template <int Rank>
VICINAL_DEVICE BoxOrigin box_origin(const HeadSteps& steps, int channel, const int (&token)[Rank], int h,
                                    int b) {
  static_assert(Rank <= 3);
  if constexpr (Rank <= 2) {
    return {channel, token[Rank - 1], Rank == 2 ? token[0] : 0, h, b};
  } else {
    return {channel + h * static_cast<int>(steps.channel), token[2], token[1], token[0],
            h * static_cast<int>(steps.head) + b * static_cast<int>(steps.batch)};
  }
}

// Copies so many slabs of a box of tokens to shared memory. The engine may take a box in parts: those that
// one copy brings, along each axis, divide its extents.
template <class V, int Slabs, int Tokens>
VICINAL_DEVICE void copy_tokens(const typename V::Arguments& a, const TensorMap* map, const HeadSteps& steps,
                                const i64 (&extent)[V::rank], const i64 (&copied)[V::rank],
                                const int (&first)[V::rank], int h, int b, u32 to, u32 full, u64 hint) {
  const auto copy = [&](const int(&token)[V::rank], int row) {
#pragma unroll
    for (int slab = 0; slab < Slabs; ++slab)
      copy_box(to + (slab * Tokens + row) * kSlabRowBytes, map,
               box_origin<V::rank>(steps, slab * kSlabChannels, token, h, b), full, hint);
  };
  if constexpr (V::dilated) {
    int part = 1, parts = 1, at[V::rank] = {}, token[V::rank];
#pragma unroll
    for (int i = 0; i < V::rank; ++i) {
      part *= static_cast<int>(copied[i]);
      parts *= static_cast<int>(extent[i] / copied[i]);
      token[i] = first[i];
    }
#pragma unroll 1
    for (int n = 0;; ++n) {
      copy(token, n * part);
      if (n == parts - 1) break;
      bool carry = true;
#pragma unroll
      for (int i = V::rank - 1; i >= 0; --i) {
        if (!carry) continue;
        at[i] += static_cast<int>(copied[i]);
        carry = at[i] == static_cast<int>(extent[i]);
        if (carry) at[i] = 0;
        token[i] = first[i] + at[i] * V::axis(a, i).dilation;
      }
    }
  } else {
    copy(first, 0);
  }
}

// Where the thread's columns lie in a box of tokens. `first`: the thread's first column.
template <int Rank, int Columns>
class BoxColumns {
  using Bits = ColumnBits<Columns>;

 public:
  VICINAL_DEVICE BoxColumns(const ColumnArguments<Rank>& arguments, const i64 (&tile)[Rank], int first)
      : box(arguments), extent(tile), column(first) {}

  // Those at places [begin, end) of an axis; the range may reach out of the tile.
  VICINAL_DEVICE Bits between(int axis, int begin, int end) const {
    const int step = static_cast<int>(box.step[axis]);
    const auto before = [&](int place) {
      const int inside = axis == 0 ? place : smaller(place, static_cast<int>(extent[axis]));
      return columns_before<Bits>(inside * step - column);
    };
    const Bits once = before(end) & ~before(begin);
    // The stretches of an axis do not overlap, and so a product repeats its pattern.
    return axis == 0 ? once : once * static_cast<Bits>(box.repeat[axis]);
  }

  // The place of a column, which counts from the thread's first, along each axis.
  VICINAL_DEVICE void places(int offset, int (&at)[Rank]) const {
    int group = offset / 8;
#pragma unroll
    for (int i = Rank - 1; i >= 0; --i) {
      const bool last = i == Rank - 1;
      int place = group;
      if (i > 0) {
        const int count = static_cast<int>(last ? extent[i] / 8 : extent[i]);
        group = place * static_cast<int>(box.inverse[i]) >> 16;
        place -= group * count;
      }
      at[i] = last ? 8 * place + column + offset % 8 : place;
    }
  }

 private:
  const ColumnArguments<Rank>& box;
  const i64 (&extent)[Rank];
  const int column;
};

}  // namespace vicinal::hopper
