// In place of templates/vicinal/ptx/math.cuh where a kernel runs on the host.
#pragma once

#include "vicinal/platform.cuh"

namespace vicinal {

VICINAL_DEVICE float exp2_approx(float x) {
  return exp2f(x);
}
VICINAL_DEVICE float reciprocal_approx(float x) {
  return 1 / x;
}

VICINAL_DEVICE float tanh_approx(float x) {
  return tanhf(x);
}
VICINAL_DEVICE u32 shift_right(u32 x, u32 count) {
  return count < 32 ? x >> count : 0;
}

}  // namespace vicinal
