// Which kernels run a variant, and the ways to cut them for it.
#pragma once

#include <string>
#include <vector>

#include "compiler/emit/cuda/kernel_source.h"

namespace vicinal::emit {

// Whether the kernel can be compiled for a device of that compute capability, as 90 is 9.0.
bool runs_on(KernelKind kind, int capability);

// The ways to cut a kernel for a variant, best first; of a kernel without schedules there is one. `why`:
// there is none, since the kernel does not run the variant, or not on such a device.
struct Choice {
  std::vector<KernelOptions> candidates;
  std::string why;
};
// `variations`: after these also those that a measurement should try.
Choice choose(KernelKind kind, const Specialized& variant, const KernelOptions& options, int capability,
              bool variations = false);
// Of the fastest kernel that runs the variant.
Choice choose_fastest(const Specialized& variant, const KernelOptions& options, int capability);

// The tiles, and how they are worked on.
std::string print_schedule(const KernelOptions& options);

}  // namespace vicinal::emit
