// In place of templates/vicinal/ptx/matrix.cuh where a kernel runs on the host.
#pragma once

#include "vicinal/ptx/convert.cuh"

namespace vicinal {

VICINAL_DEVICE void copy_word(u32 to, const void* from, bool exists) {
  if (exists) {
    memcpy(cuda_on_host::shared_memory + to, from, 16);
  } else {
    memset(cuda_on_host::shared_memory + to, 0, 16);
  }
}
VICINAL_DEVICE void copies_wait() {}

// Of matrix n the row r lies where lane 8 * n + r says. A lane gets two neighbours of row lane / 4, or of
// column lane / 4.
VICINAL_DEVICE void load_matrices(u32 address, u32 (&x)[4]) {
  const unsigned lane = threadIdx.x % 32;
  cuda_on_host::among_lanes(address, [&](auto of) {
    for (unsigned n = 0; n < 4; ++n)
      memcpy(&x[n], cuda_on_host::shared_memory + of(8 * n + lane / 4) + lane % 4 * 4, 4);
    return 0;
  });
}
VICINAL_DEVICE void load_transposed_matrices(u32 address, u32 (&x)[4]) {
  const unsigned lane = threadIdx.x % 32;
  cuda_on_host::among_lanes(address, [&](auto of) {
    for (unsigned n = 0; n < 4; ++n) {
      unsigned short pair[2];
      for (unsigned e = 0; e < 2; ++e)
        memcpy(&pair[e], cuda_on_host::shared_memory + of(8 * n + lane % 4 * 2 + e) + lane / 4 * 2, 2);
      memcpy(&x[n], pair, 4);
    }
    return 0;
  });
}

// A lane shows its part of the operands: of a the rows lane / 4 and lane / 4 + 8, of b the column lane / 4.
// `number(word, e)`: element e of a word of PerWord.
template <int PerWord, class Number>
VICINAL_DEVICE void multiply_of_warp(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, Number number) {
  struct Shown {
    u32 a[4], b[2];
  };
  const unsigned lane = threadIdx.x % 32;
  cuda_on_host::among_lanes(Shown{{a[0], a[1], a[2], a[3]}, {b0, b1}}, [&](auto of) {
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned row = lane / 4, column = lane % 4 * 2 + i % 2;
      float sum = 0;
      for (unsigned half = 0; half < 2; ++half)
        for (unsigned quarter = 0; quarter < 4; ++quarter) {
          const Shown left = of(row * 4 + quarter), right = of(column * 4 + quarter);
          for (unsigned e = 0; e < PerWord; ++e)
            sum += number(left.a[2 * half + i / 2], e) * number(right.b[half], e);
        }
      c[i] += sum;
    }
    return 0;
  });
}
template <class T>
VICINAL_DEVICE void add_product(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  multiply_of_warp<2>(c, a, b0, b1, [](u32 word, unsigned e) {
    return to_float(T{static_cast<unsigned short>(word >> 16 * e)});
  });
}
// To the nearest, and away from 0 in the middle.
VICINAL_DEVICE u32 round_to_tf32(float x) {
  return (__float_as_uint(x) + 0x1000) & 0xffffe000;
}
VICINAL_DEVICE void add_tf32_product(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  multiply_of_warp<1>(c, a, b0, b1, [](u32 word, unsigned) { return __uint_as_float(word & 0xffffe000); });
}

}  // namespace vicinal
