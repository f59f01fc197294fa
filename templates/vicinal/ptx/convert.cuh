// The 16-bit storage types and their conversions: one instruction per function. cuda_fp16.h and cuda_bf16.h
// are not included: each costs more compile time than a whole kernel.
#pragma once

#include "vicinal/platform.cuh"

namespace vicinal {

struct bf16 {
  unsigned short bits;
};

struct f16 {
  unsigned short bits;
};

VICINAL_DEVICE float to_float(float x) {
  return x;
}

// A bf16 is the upper half of the fp32 of the same value.
VICINAL_DEVICE float to_float(bf16 x) {
  return __uint_as_float(static_cast<u32>(x.bits) << 16);
}

VICINAL_DEVICE float to_float(f16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

// Rounds to nearest even.
template <class T>
VICINAL_DEVICE T from_float(float x);

template <>
VICINAL_DEVICE float from_float<float>(float x) {
  return x;
}

template <>
VICINAL_DEVICE f16 from_float<f16>(float x) {
  f16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}

template <>
VICINAL_DEVICE bf16 from_float<bf16>(float x) {
  bf16 y;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#else
  const u32 bits = __float_as_uint(x);
  const u32 rounded = bits + 0x7fff + (bits >> 16 & 1);
  y.bits = x != x ? 0x7fff : static_cast<unsigned short>(rounded >> 16);
#endif
  return y;
}

// Rounds two numbers to one register, from sm_80 on; the first is the low half.
template <class T>
VICINAL_DEVICE u32 pack(float low, float high);
template <>
VICINAL_DEVICE u32 pack<bf16>(float low, float high) {
  u32 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
template <>
VICINAL_DEVICE u32 pack<f16>(float low, float high) {
  u32 pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// The elements of one 16-byte word.
template <class T>
constexpr int kPerWord = 16 / sizeof(T);

template <class T>
VICINAL_DEVICE void unpack(uint4 word, float (&x)[4]) {
  x[0] = __uint_as_float(word.x);
  x[1] = __uint_as_float(word.y);
  x[2] = __uint_as_float(word.z);
  x[3] = __uint_as_float(word.w);
}

template <class T>
VICINAL_DEVICE void unpack(uint4 word, float (&x)[8]) {
  const u32 pair[4] = {word.x, word.y, word.z, word.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = to_float(T{static_cast<unsigned short>(pair[i])});
    x[2 * i + 1] = to_float(T{static_cast<unsigned short>(pair[i] >> 16)});
  }
}

}  // namespace vicinal
