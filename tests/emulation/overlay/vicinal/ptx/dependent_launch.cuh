// In place of templates/vicinal/ptx/dependent_launch.cuh where a kernel runs on the host: one after the
// other.
#pragma once

#include "vicinal/platform.cuh"

namespace vicinal {

VICINAL_DEVICE void let_next_kernel_start() {}
VICINAL_DEVICE void await_last_kernel() {}

}  // namespace vicinal
