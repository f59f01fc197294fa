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

}  // namespace vicinal
