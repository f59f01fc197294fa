// In place of templates/vicinal/ptx/convert.cuh where a kernel runs on the host.
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
VICINAL_DEVICE float to_float(bf16 x) {
  return __uint_as_float(static_cast<u32>(x.bits) << 16);
}
VICINAL_DEVICE float to_float(f16 x) {
  return static_cast<float>(std::bit_cast<_Float16>(x.bits));
}

template <class T>
VICINAL_DEVICE T from_float(float x);
template <>
VICINAL_DEVICE float from_float<float>(float x) {
  return x;
}
template <>
VICINAL_DEVICE bf16 from_float<bf16>(float x) {
  const u32 bits = __float_as_uint(x);
  return {x != x ? static_cast<unsigned short>(0x7fff)
                 : static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

template <>
VICINAL_DEVICE f16 from_float<f16>(float x) {
  return {std::bit_cast<unsigned short>(static_cast<_Float16>(x))};
}

template <class T>
VICINAL_DEVICE u32 pack(float low, float high) {
  return from_float<T>(low).bits | static_cast<u32>(from_float<T>(high).bits) << 16;
}

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
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = to_float(T{static_cast<unsigned short>(pair[i])});
    x[2 * i + 1] = to_float(T{static_cast<unsigned short>(pair[i] >> 16)});
  }
}

}  // namespace vicinal
