// A tile of fp32 numbers in shared memory, and how tensor rows get into it.
#pragma once

#include "vicinal/arguments.cuh"
#include "vicinal/ptx/convert.cuh"

namespace vicinal {

// Moves as one instruction when N is 4 or 2.
template <int N>
struct alignas(4 * N) Vector {
  float x[N];
};

// `Pad` floats more per row shift the banks, so that threads which read one column of different rows do not
// collide.
template <int Rows, int Columns, int Pad>
struct SharedTile {
  alignas(16) float data[Rows][Columns + Pad];

  VICINAL_DEVICE float& at(int row, int column) { return data[row][column]; }
  VICINAL_DEVICE float at(int row, int column) const { return data[row][column]; }

  template <int N>
  VICINAL_DEVICE Vector<N> read(int row, int column) const {
    return *reinterpret_cast<const Vector<N>*>(&data[row][column]);
  }

  template <int N>
  VICINAL_DEVICE void write(int row, int column, const Vector<N>& v) {
    *reinterpret_cast<Vector<N>*>(&data[row][column]) = v;
  }
};

// A tensor at one batch and head, as rows of elements.
template <class T>
struct RowSource {
  const T* data;
  i64 step;    // from element to element of a row
  bool words;  // whether every row can be read in 16-byte words
};

template <class T, int Rank>
VICINAL_DEVICE RowSource<T> row_source(const TensorArgument<Rank>& tensor, i64 offset) {
  i64 strides = tensor.batch | tensor.head;
#pragma unroll
  for (int i = 0; i < Rank; ++i) strides |= tensor.axis[i];
  const bool aligned = (reinterpret_cast<u64>(tensor.data) & 15) == 0 && (strides & (kPerWord<T> - 1)) == 0;
  return {static_cast<const T*>(tensor.data) + offset, tensor.dim, tensor.dim == 1 && aligned};
}

// The offset of a row that is not there.
constexpr i64 kNoRow = -0x7fffffffffffffffLL - 1;

// Columns [begin, end) of the source go to the tile's columns from 0 on, converted to fp32 by all `Threads`
// threads of the block. `offset` holds the element offset of each row; a row that is not there becomes 0.
// Returns 0, or NaN if this thread met a value that is not finite.
template <int Threads, class T, int Rows, int Columns, int Pad>
VICINAL_DEVICE float load_rows(SharedTile<Rows, Columns, Pad>& tile, const RowSource<T>& source,
                               const i64* offset, int begin, int end) {
  constexpr int kWord = kPerWord<T>;
  constexpr int kWords = Columns / kWord;
  float probe = 0.0f;
  if (source.words) {
#pragma unroll 1
    for (int i = threadIdx.x; i < Rows * kWords; i += Threads) {
      const int row = i / kWords, column = i % kWords * kWord;
      if (begin + column >= end) continue;
      float x[kWord] = {};
      if (offset[row] != kNoRow) {
        unpack<T>(*reinterpret_cast<const uint4*>(source.data + offset[row] + begin + column), x);
      }
#pragma unroll
      for (int j = 0; j < kWord; j += 4) {
        tile.write(row, column + j, Vector<4>{x[j], x[j + 1], x[j + 2], x[j + 3]});
      }
#pragma unroll
      for (int j = 0; j < kWord; ++j) probe = fmaf(x[j], 0.0f, probe);
    }
  } else {
#pragma unroll 1
    for (int i = threadIdx.x; i < Rows * Columns; i += Threads) {
      const int row = i / Columns, column = i % Columns;
      if (begin + column >= end) continue;
      const float x =
          offset[row] != kNoRow ? to_float(source.data[offset[row] + (begin + column) * source.step]) : 0.0f;
      tile.at(row, column) = x;
      probe = fmaf(x, 0.0f, probe);
    }
  }
  return probe;
}

}  // namespace vicinal
