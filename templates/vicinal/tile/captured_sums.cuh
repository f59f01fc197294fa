// Sums for the elements of captured tensors, in an order that is always the same: a block has a list of sums
// of its own, and no two of its threads ever add to one of them at a time.
//
// What the pairs of a tile contribute lies in shared memory. Where it is known which pairs read one element
// a thread adds up such a line of the tile, and only the lines' sums go on: a thread looks at all of them,
// in order, and adds those for elements that are its own, one of kThreads.
#pragma once

#include "vicinal/tile/tile_pair.cuh"

namespace vicinal::backward {

constexpr u32 kNowhere = 0xffffffffu;

template <int Rank>
class CapturedSums {
 public:
  struct Shared {
    u32 element[kTile][kTile + 1];  // of the list; kNowhere: nothing is contributed
    float share[kTile][kTile + 1];
    u32 line_element[kThreads];
    float line_share[kThreads];
  };

  VICINAL_DEVICE CapturedSums(const TileArguments<Rank>& tile_shape, Shared& storage, float* block_sums)
      : shape(tile_shape), shared(storage), sums(block_sums) {}

  // What the pair (r, j) contributes; every thread for its own pairs.
  VICINAL_DEVICE void contribute(int r, int j, i64 element, float share) {
    shared.element[r][j] = share != 0.0f ? static_cast<u32>(element) : kNowhere;
    shared.share[r][j] = share;
  }
  // A line's sum, by the thread that has it.
  VICINAL_DEVICE void contribute_line(int line, i64 element, float share) {
    shared.line_element[line] = share != 0.0f ? static_cast<u32>(element) : kNowhere;
    shared.line_share[line] = share;
  }

  // Adds what the pairs of a tile have contributed; in place, where somebody asks for it.
  template <Adding adding>
  VICINAL_DEVICE void add_pairs(float* place) {
    __syncthreads();
    if constexpr (adding == Adding::pair || adding == Adding::in_place) {
      float* const to = adding == Adding::pair ? sums : place;
      if (to != nullptr) add_own_pairs(to);
      __syncthreads();
    } else if constexpr (adding == Adding::distance) {
      int diagonals = 1;
#pragma unroll
      for (int i = 0; i < Rank; ++i) diagonals *= static_cast<int>(shape.q[i] + shape.k[i]) - 1;
      add_lines(diagonals, [&](int line) { return Diagonal(shape, line); });
    } else if constexpr (adding == Adding::column) {
      add_lines(kTile, [&](int line) { return Column{line}; });
    } else if constexpr (adding == Adding::ordered) {
#pragma unroll 1
      for (int r = 0; r < kTile; ++r)
#pragma unroll 1
        for (int j = 0; j < kTile; ++j) add(shared.element[r][j], shared.share[r][j]);
      __syncthreads();
    } else {
      if (const int r = threadIdx.x; r < kTile) {
        u32 element = kNowhere;
        float total = 0.0f;
#pragma unroll 1
        for (int j = 0; j < kTile; ++j) join(shared.element[r][j], shared.share[r][j], element, total);
        shared.line_element[r] = element;
        shared.line_share[r] = total;
      }
      add_contributed_lines(kTile);
    }
  }

  VICINAL_DEVICE void add_contributed_lines(int count) {
    __syncthreads();
#pragma unroll 1
    for (int line = 0; line < count; ++line) add(shared.line_element[line], shared.line_share[line]);
    __syncthreads();
  }

 private:
  // Lines have a pair in a row of the tile, or none. key() is asked row by row, and has -1 for none.
  struct Column {
    int j;
    VICINAL_DEVICE int key() const { return j; }
  };
  // Pairs whose keys lie equally far along in their box as their queries: positions differ alike.
  struct Diagonal {
    int ahead[Rank], digit[Rank], q[Rank], k[Rank];

    VICINAL_DEVICE Diagonal(const TileArguments<Rank>& shape, int line) {
#pragma unroll
      for (int i = Rank - 1; i >= 0; --i) {
        q[i] = static_cast<int>(shape.q[i]);
        k[i] = static_cast<int>(shape.k[i]);
        digit[i] = 0;
        ahead[i] = take_digit(line, q[i] + k[i] - 1, i == 0) - (q[i] - 1);
      }
    }
    VICINAL_DEVICE int key() {
      int j = 0;
      bool inside = true;
#pragma unroll
      for (int i = 0; i < Rank; ++i) {
        const int at = digit[i] + ahead[i];
        inside = inside && at >= 0 && at < k[i];
        j = j * k[i] + at;
      }
      bool carry = true;  // to the next query
#pragma unroll
      for (int i = Rank - 1; i >= 0; --i) {
        if (carry) digit[i] = digit[i] + 1 == q[i] ? 0 : digit[i] + 1;
        carry = carry && digit[i] == 0;
      }
      return inside ? j : -1;
    }
  };

  VICINAL_DEVICE static void join(u32 from, float share, u32& element, float& total) {
    if (from == kNowhere) return;
    element = from;
    total += share;
  }

  template <class LineOf>
  VICINAL_DEVICE void add_lines(int lines, LineOf line_of) {
#pragma unroll 1
    for (int first = 0; first < lines; first += kThreads) {
      const int count = lines - first < kThreads ? lines - first : kThreads;
      if (const int t = threadIdx.x; t < count) {
        auto line = line_of(first + t);
        u32 element = kNowhere;
        float total = 0.0f;
#pragma unroll 1
        for (int r = 0; r < kTile; ++r)
          if (const int j = line.key(); j >= 0)
            join(shared.element[r][j], shared.share[r][j], element, total);
        shared.line_element[t] = element;
        shared.line_share[t] = total;
      }
      add_contributed_lines(count);
    }
  }

  // No other pair of the tile reads their elements.
  VICINAL_DEVICE void add_own_pairs(float* to) const {
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
#pragma unroll
      for (int c = 0; c < kMine; ++c) {
        const u32 element = shared.element[thread_row(i)][thread_key(c)];
        if (element != kNowhere) to[element] += shared.share[thread_row(i)][thread_key(c)];
      }
    }
  }

  VICINAL_DEVICE void add(u32 element, float share) {
    if (element != kNowhere && element % kThreads == threadIdx.x) sums[element] += share;
  }

  const TileArguments<Rank>& shape;
  Shared& shared;
  float* sums;
};

}  // namespace vicinal::backward
