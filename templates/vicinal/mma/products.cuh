// Products of 16x16 blocks by a warp, for each element type: how a lane's share of a block comes out of
// shared memory, and what is multiplied.
//
// A block of scores is two 16x8 accumulators side by side. Its left operand are 16 rows of queries, its right
// one 16 keys, both at the same 16 channels; of the output, the left operand are the weights, which are
// already where they have to be, and the right one 16 keys at 16 channels of values.
#pragma once

#include "vicinal/ptx/barrier.cuh"
#include "vicinal/ptx/matrix.cuh"
#include "vicinal/ptx/order.cuh"

namespace vicinal::mma {

constexpr int kBlock = 16;
using Accumulator = float[2][4];

VICINAL_DEVICE int lane() {
  return static_cast<int>(threadIdx.x) % 32;
}

// Split: fp32 products from three of tf32.
template <class T, bool Split>
struct Products {
  static_assert(sizeof(T) == 2);

  // Elements from row to row: rows start an odd number of 16-byte words apart, so that eight neighbouring
  // ones touch all banks.
  static constexpr int key_stride(int channels) { return channels + 8; }
  static constexpr int value_stride(int channels) { return channels + 8; }

  struct Operand {
    u32 x[4];
  };

  template <int Stride>
  VICINAL_DEVICE static Operand queries(const T* tile, int row, int channel) {
    Operand a;
    load_matrices(shared_address(tile + (row + lane() % 16) * Stride + channel + lane() / 16 * 8), a.x);
    return a;
  }
  template <int Stride>
  VICINAL_DEVICE static Operand keys(const T* tile, int key, int channel) {
    Operand b;
    load_matrices(
        shared_address(tile + (key + lane() / 16 * 8 + lane() % 8) * Stride + channel + lane() / 8 % 2 * 8),
        b.x);
    return b;
  }
  template <int Stride>
  VICINAL_DEVICE static Operand values(const T* tile, int key, int channel) {
    Operand b;
    load_transposed_matrices(shared_address(tile + (key + lane() % 16) * Stride + channel + lane() / 16 * 8),
                             b.x);
    return b;
  }
  VICINAL_DEVICE static Operand weights(const Accumulator& w) {
    return {{pack<T>(w[0][0], w[0][1]), pack<T>(w[0][2], w[0][3]), pack<T>(w[1][0], w[1][1]),
             pack<T>(w[1][2], w[1][3])}};
  }

  VICINAL_DEVICE static void add(Accumulator& c, const Operand& a, const Operand& b) {
    add_product<T>(c[0], a.x, b.x[0], b.x[1]);
    add_product<T>(c[1], a.x, b.x[2], b.x[3]);
  }
};

// In which order a product takes its channels, or keys, does not matter as long as both operands agree: a
// lane takes those that lie next to each other in memory, or that its weights belong to.
template <bool Split>
struct Products<float, Split> {
  // Two neighbouring rows of keys, or the rows that the lanes of a quad take of values, touch all banks.
  static constexpr int key_stride(int channels) { return channels % 32 == 16 ? channels : channels + 16; }
  static constexpr int value_stride(int channels) { return channels + 4; }

  // Of both halves of the 16 channels or keys: a[half] of an operand on the left, b[half] of each 8 columns.
  struct Operand {
    float x[2][4];
  };

  template <int Stride>
  VICINAL_DEVICE static Operand queries(const float* tile, int row, int channel) {
    Operand a;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const auto x = *reinterpret_cast<const float4*>(tile + (row + 8 * r + lane() / 4) * Stride + channel +
                                                      lane() % 4 * 4);
      a.x[0][r] = x.x, a.x[0][2 + r] = x.y, a.x[1][r] = x.z, a.x[1][2 + r] = x.w;
    }
    return a;
  }
  template <int Stride>
  VICINAL_DEVICE static Operand keys(const float* tile, int key, int channel) {
    Operand b;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const auto x = *reinterpret_cast<const float4*>(tile + (key + 8 * n + lane() / 4) * Stride + channel +
                                                      lane() % 4 * 4);
      b.x[0][2 * n] = x.x, b.x[0][2 * n + 1] = x.y, b.x[1][2 * n] = x.z, b.x[1][2 * n + 1] = x.w;
    }
    return b;
  }
  template <int Stride>
  VICINAL_DEVICE static Operand values(const float* tile, int key, int channel) {
    Operand b;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        b.x[half][i] =
            tile[(key + 8 * half + lane() % 4 * 2 + i % 2) * Stride + channel + i / 2 * 8 + lane() / 4];
    }
    return b;
  }
  VICINAL_DEVICE static Operand weights(const Accumulator& w) {
    Operand a;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      a.x[half][0] = w[half][0], a.x[half][1] = w[half][2], a.x[half][2] = w[half][1];
      a.x[half][3] = w[half][3];
    }
    return a;
  }

  // Split: x = high + low, where high is rounded to the 11 bits of tf32 and low, of the first 11 of the 13
  // that are left, takes its sign from the rounding. The product of the two low parts, 2^-22 of the whole, is
  // left out. Tensor cores cut off what a sum has too many bits for, always towards 0, so that the sums of a
  // block are added to the others as fp32 (Ootomo and Yokota, "Recovering single precision accuracy from
  // Tensor Cores", 2022).
  VICINAL_DEVICE static void add(Accumulator& c, const Operand& a, const Operand& b) {
    Accumulator part = {};
    Accumulator& sum = Split ? part : c;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Parts left(a.x[half]), right(b.x[half]);
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        if constexpr (Split) {
          add_tf32_product(sum[n], left.low, right.high[2 * n], right.high[2 * n + 1]);
          add_tf32_product(sum[n], left.high, right.low[2 * n], right.low[2 * n + 1]);
        }
        add_tf32_product(sum[n], left.high, right.high[2 * n], right.high[2 * n + 1]);
      }
    }
    if constexpr (Split) {
#pragma unroll
      for (int i = 0; i < 8; ++i) c[i / 4][i % 4] += part[i / 4][i % 4];
    }
  }

 private:
  struct Parts {
    u32 high[4], low[4];

    VICINAL_DEVICE explicit Parts(const float (&x)[4]) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if constexpr (Split) {
          // A NaN may become something else here, and is one still in the low part.
          constexpr u32 kUpper = 0xffffe000, kHalf = 0x1000;
          high[i] = (__float_as_uint(x[i]) + kHalf) & kUpper;
          low[i] = __float_as_uint(x[i] - __uint_as_float(high[i])) & kUpper;
        } else {
          high[i] = round_to_tf32(x[i]);
        }
      }
    }
  };
};

}  // namespace vicinal::mma
