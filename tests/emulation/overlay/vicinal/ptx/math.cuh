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

}  // namespace vicinal
