// Kernels of a stream that start before the one before them has ended (programmatic dependent launch, from
// sm_90 on; PTX ISA, "griddepcontrol"). Elsewhere, and where the host does not ask for it, these do nothing.
#pragma once

#include "vicinal/platform.cuh"

namespace vicinal {

// The stream's next kernel may start as soon as all blocks have said so or ended.
VICINAL_DEVICE void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Until the stream's last kernel has ended and what it wrote is seen.
VICINAL_DEVICE void await_last_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace vicinal
