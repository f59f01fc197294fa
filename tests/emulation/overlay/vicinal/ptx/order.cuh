// In place of templates/vicinal/ptx/order.cuh where a kernel runs on the host: nothing depends on it.
#pragma once

#include "vicinal/platform.cuh"

namespace vicinal {

template <class T>
VICINAL_DEVICE void settle(T&) {}
VICINAL_DEVICE void keep_branch() {}

}  // namespace vicinal
