// Runs a kernel of the forward pass on the host, with the arguments that a device would get.
#pragma once

#include "compiler/emit/cuda/kernel_source.h"
#include "runtime/cuda/driver_api.h"
#include "runtime/plan/tile_grid.h"
#include "tests/emulation/host_library.h"
#include "tests/support/plain_attention.h"

namespace vicinal::testing {

// A driver of which only tensor maps work, and those are the host's.
const cuda::DriverApi& driver_on_host();

class ForwardOnHost {
 public:
  // `kernel`: of any backend, with the dtype and dims of the options.
  static std::optional<ForwardOnHost> make(const Kernel& kernel, const emit::KernelOptions& options);

  // Why the kernel cannot take the problem's tensors; nothing where it can.
  std::optional<std::string> obstacle(const Problem& problem) const;
  // Leaves out and LSE in the problem's memory. `blocks`: of the launch.
  Result<void> run(Problem& problem, unsigned blocks = 3) const;

 private:
  bool hopper() const { return options_.kind == emit::KernelKind::hopper; }
  std::optional<plan::TileShape> shape(const runtime::Problem& bound) const;

  const Kernel* kernel_ = nullptr;
  emit::KernelOptions options_;
  emit::KernelSource source_;
  HostLibrary library_;
};

}  // namespace vicinal::testing
