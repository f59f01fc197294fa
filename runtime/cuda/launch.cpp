#include "runtime/cuda/launch.h"

namespace vicinal::cuda {

Result<void> launch(const LoadedKernel& kernel, StreamHandle stream, const LaunchShape& shape,
                    std::span<const std::byte> arguments) {
  const auto& [grid, block, shared, early] = shape;
  const DriverApi& api = kernel.context().api();
  void* parameters[] = {const_cast<std::byte*>(arguments.data())};
  if (early) {
    LaunchAttribute attribute{LaunchAttributeId::programmatic_stream_serialization, 0, {1}};
    const LaunchConfig config{
        {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared, stream, &attribute, 1};
    return check(api, api.launch_kernel_with, &config, kernel.function(), parameters, nullptr);
  }
  return check(api, api.launch_kernel, kernel.function(), grid.x, grid.y, grid.z, block.x, block.y, block.z,
               shared, stream, parameters, nullptr);
}

}  // namespace vicinal::cuda
