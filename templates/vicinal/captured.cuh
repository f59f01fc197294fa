// Reads of captured inputs: any element type, any strides, 64-bit offsets.
#pragma once

#include "vicinal/arguments.cuh"
#include "vicinal/ptx/convert.cuh"

namespace vicinal {

VICINAL_DEVICE float element_float(float x) {
  return x;
}
VICINAL_DEVICE float element_float(double x) {
  return static_cast<float>(x);
}
VICINAL_DEVICE float element_float(f16 x) {
  return to_float(x);
}
VICINAL_DEVICE float element_float(bf16 x) {
  return to_float(x);
}

template <class T, int Rank>
VICINAL_DEVICE i64 offset(const InputArgument<T, Rank>&, int) {
  return 0;
}
template <class T, int Rank, class... Rest>
VICINAL_DEVICE i64 offset(const InputArgument<T, Rank>& x, int dimension, int i, Rest... rest) {
  return i * x.stride[dimension] + offset(x, dimension + 1, rest...);
}

template <class T, int Rank, class... Indices>
VICINAL_DEVICE int load_int(const InputArgument<T, Rank>& x, Indices... i) {
  return static_cast<int>(x.data[offset(x, 0, i...)]);
}
template <class T, int Rank, class... Indices>
VICINAL_DEVICE float load_float(const InputArgument<T, Rank>& x, Indices... i) {
  return element_float(x.data[offset(x, 0, i...)]);
}
template <class T, int Rank, class... Indices>
VICINAL_DEVICE bool load_bool(const InputArgument<T, Rank>& x, Indices... i) {
  return x.data[offset(x, 0, i...)] != 0;
}

// The number of an element in C order.
template <class T, int Rank, class... Indices>
VICINAL_DEVICE i64 element(const InputArgument<T, Rank>& x, Indices... i) {
  i64 number = 0;
  int dimension = 0;
  ((number = number * x.extent[dimension++] + i), ...);
  return number;
}

// One factor of a dot(), from the offset of its row on.
template <class T, int Rank>
VICINAL_DEVICE float channel(const InputArgument<T, Rank>& x, i64 row_offset, i64 i) {
  return element_float(x.data[row_offset + i * x.stride[Rank - 1]]);
}

// Sum over the last dimension of both, from the given offsets on, fp32 products added in index order and
// never contracted, so that a mask may use it.
template <class T, int M, class U, int N>
VICINAL_DEVICE float dot(const InputArgument<T, M>& x, i64 x_offset, const InputArgument<U, N>& y,
                         i64 y_offset) {
  float sum = 0.0f;
  for (i64 i = 0; i < x.extent[M - 1]; ++i)
    sum = __fadd_rn(sum, __fmul_rn(element_float(x.data[x_offset + i * x.stride[M - 1]]),
                                   element_float(y.data[y_offset + i * y.stride[N - 1]])));
  return sum;
}

}  // namespace vicinal
