// Approximate elementary functions: one instruction per function.
#pragma once

#include "vicinal/platform.cuh"

namespace vicinal {

// 2^x, relative error below 2^-22; results below the smallest normal number are 0. Exact at 0 and at -inf.
VICINAL_DEVICE float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 1 / x, within 1 unit in the last place; results below the smallest normal number are 0.
VICINAL_DEVICE float reciprocal_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Within 2^-10.987 of the result (PTX ISA, "tanh").
VICINAL_DEVICE float tanh_approx(float x) {
#if __CUDA_ARCH__ >= 750
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return tanhf(x);
#endif
}

// Unlike >>, 0 for a shift past the width.
VICINAL_DEVICE u32 shift_right(u32 x, u32 count) {
  u32 y;
  asm("shr.b32 %0, %1, %2;" : "=r"(y) : "r"(x), "r"(count));
  return y;
}

}  // namespace vicinal
