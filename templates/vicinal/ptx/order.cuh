// What tells the compiler when something is to be computed. No instructions.
#pragma once

#include "vicinal/platform.cuh"

namespace vicinal {

// Not later than here.
VICINAL_DEVICE void settle(u32& x) {
  asm volatile("" : "+r"(x));
}
VICINAL_DEVICE void settle(float& x) {
  asm volatile("" : "+f"(x));
}
// A branch with this in it stays a branch.
VICINAL_DEVICE void keep_branch() {
  asm volatile("");
}

}  // namespace vicinal
