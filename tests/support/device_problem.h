// A problem on a CUDA device, through the public API.
#pragma once

#include "runtime/cuda/context.h"
#include "tests/support/plain_attention.h"

namespace vicinal::testing {

// Copies the problem to the device, runs the kernel, and puts its out and lse into the problem's own memory.
// Whether the run takes a plan, makes one itself where it can, or visits whatever the neighborhood reaches.
enum class Tiles { reached, planned, planned_in_run };
Result<void> run_on_device(const cuda::Context& context, const Kernel& kernel, Problem& problem, Tiles tiles);

}  // namespace vicinal::testing
