// The language's arithmetic: total on integers, and in masks exact on floats. compiler/ir/ops.def has the
// table of operations that prints these; tests compare both on the host.
#pragma once

#include "vicinal/platform.cuh"
#if defined(__CUDACC__)
#include "vicinal/ptx/math.cuh"
#endif

namespace vicinal {

// Integers are 32-bit two's complement and wrap; C++ leaves signed overflow undefined, so they go through
// unsigned.
VICINAL_HD int add(int x, int y) {
  return static_cast<int>(static_cast<u32>(x) + static_cast<u32>(y));
}
VICINAL_HD int sub(int x, int y) {
  return static_cast<int>(static_cast<u32>(x) - static_cast<u32>(y));
}
VICINAL_HD int mul(int x, int y) {
  return static_cast<int>(static_cast<u32>(x) * static_cast<u32>(y));
}
VICINAL_HD int neg(int x) {
  return sub(0, x);
}
VICINAL_HD int min(int x, int y) {
  return y < x ? y : x;
}
VICINAL_HD int max(int x, int y) {
  return x < y ? y : x;
}
VICINAL_HD int abs(int x) {
  return x < 0 ? neg(x) : x;
}
VICINAL_HD int sign(int x) {
  return (x > 0) - (x < 0);
}

// Rounds toward minus infinity. x // 0 = x % 0 = 0; INT_MIN // -1 = INT_MIN.
VICINAL_HD int floordiv(int x, int y) {
  if (y == 0) return 0;
  if (y == -1) return neg(x);
  const int quotient = x / y;
  return quotient - ((x % y != 0) & ((x ^ y) < 0));
}
VICINAL_HD int floormod(int x, int y) {
  if (y == 0 || y == -1) return 0;
  const int remainder = x % y;
  return remainder + (((remainder != 0) & ((x ^ y) < 0)) ? y : 0);
}

// A count outside 0..31 shifts everything out.
VICINAL_HD int shl(int x, int n) {
  return n < 0 || n > 31 ? 0 : static_cast<int>(static_cast<u32>(x) << n);
}
VICINAL_HD int shr(int x, int n) {
  return n < 0 || n > 31 ? (x < 0 ? -1 : 0) : x >> n;
}

// Toward zero; saturates; NaN is 0.
VICINAL_HD int to_int(float x) {
#if defined(__CUDA_ARCH__)
  return __float2int_rz(x);
#else
  if (x != x) return 0;
  if (x >= 2147483648.0f) return 2147483647;
  if (x <= -2147483648.0f) return -2147483647 - 1;
  return static_cast<int>(x);
#endif
}

VICINAL_HD float sign(float x) {
  return x > 0 ? 1.0f : x < 0 ? -1.0f : x;
}

// An index of a captured input, brought to the nearest element.
VICINAL_HD int clamp_index(int i, i64 extent) {
  const int last = static_cast<int>(extent) - 1;
  return i > last ? last : (i < 0 ? 0 : i);
}

#if defined(__CUDACC__)
// Scores: fast where that stays within rounding error of the score.
VICINAL_DEVICE float floormod(float x, float y) {
  return x - y * floorf(x / y);
}
VICINAL_DEVICE float sigmoid(float x) {
  return 1.0f / (1.0f + expf(-x));
}
// Within 4 units in the last place, without a branch. The polynomial has the least relative error up to 0.55
// (3.7e-8; fitted by reweighted least squares); beyond, 1 - 2 / (exp(2 x) + 1) loses no digits.
VICINAL_DEVICE float tanh(float x) {
  const float square = x * x;
  float small = fmaf(0.016437574f, square, -0.05267181f);
  small = fmaf(small, square, 0.13320725f);
  small = fmaf(small, square, -0.33332947f);
  small = fmaf(small * square, x, x);
  const float large = fmaf(-2.0f, reciprocal_approx(exp2_approx(x * 2.885390082f) + 1.0f), 1.0f);
  return fabsf(x) < 0.55f ? small : large;
}

// Masks: every operation is one fp32 round-to-nearest operation. The intrinsics keep the compiler from
// contracting two into one. Transcendentals go through double and round once, as the host does.
namespace exact {
VICINAL_DEVICE float add(float x, float y) {
  return __fadd_rn(x, y);
}
VICINAL_DEVICE float sub(float x, float y) {
  return __fsub_rn(x, y);
}
VICINAL_DEVICE float mul(float x, float y) {
  return __fmul_rn(x, y);
}
VICINAL_DEVICE float div(float x, float y) {
  return __fdiv_rn(x, y);
}
VICINAL_DEVICE float sqrt(float x) {
  return __fsqrt_rn(x);
}
VICINAL_DEVICE float floordiv(float x, float y) {
  return floorf(__fdiv_rn(x, y));
}
VICINAL_DEVICE float floormod(float x, float y) {
  return __fsub_rn(x, __fmul_rn(y, floordiv(x, y)));
}
VICINAL_DEVICE float pow(float x, float y) {
  return static_cast<float>(::pow(static_cast<double>(x), static_cast<double>(y)));
}
VICINAL_DEVICE float exp(float x) {
  return static_cast<float>(::exp(static_cast<double>(x)));
}
VICINAL_DEVICE float exp2(float x) {
  return static_cast<float>(::exp2(static_cast<double>(x)));
}
VICINAL_DEVICE float log(float x) {
  return static_cast<float>(::log(static_cast<double>(x)));
}
VICINAL_DEVICE float log2(float x) {
  return static_cast<float>(::log2(static_cast<double>(x)));
}
VICINAL_DEVICE float rsqrt(float x) {
  return static_cast<float>(1.0 / ::sqrt(static_cast<double>(x)));
}
VICINAL_DEVICE float tanh(float x) {
  return static_cast<float>(::tanh(static_cast<double>(x)));
}
VICINAL_DEVICE float sigmoid(float x) {
  return static_cast<float>(1.0 / (1.0 + ::exp(-static_cast<double>(x))));
}
VICINAL_DEVICE float sin(float x) {
  return static_cast<float>(::sin(static_cast<double>(x)));
}
VICINAL_DEVICE float cos(float x) {
  return static_cast<float>(::cos(static_cast<double>(x)));
}
VICINAL_DEVICE float tan(float x) {
  return static_cast<float>(::tan(static_cast<double>(x)));
}
VICINAL_DEVICE float erf(float x) {
  return static_cast<float>(::erf(static_cast<double>(x)));
}
}  // namespace exact
#endif

}  // namespace vicinal
