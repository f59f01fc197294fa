// Starts a kernel on a stream: no allocation, no synchronisation, so a launch can be captured into a graph.
// The kernel's context must be current (ContextScope).
#pragma once

#include <cstddef>
#include <span>

#include "runtime/cuda/loaded_kernel.h"

namespace vicinal::cuda {

struct Dimensions {
  unsigned x = 1, y = 1, z = 1;
};

struct LaunchShape {
  Dimensions grid, block;
  unsigned dynamic_shared_bytes = 0;
  // It may start before the stream's last kernel has ended, once all blocks of that one have let it
  // (programmatic dependent launch). It waits itself for what it needs.
  bool early = false;
};

// `arguments` is the kernel's only parameter, byte for byte; it is copied before this returns.
Result<void> launch(const LoadedKernel& kernel, StreamHandle stream, const LaunchShape& shape,
                    std::span<const std::byte> arguments);

}  // namespace vicinal::cuda
