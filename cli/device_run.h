// Host tensors on a CUDA device: copied there, computed, copied back.
#pragma once

#include <functional>

#include "cli/problem.h"
#include "runtime/cuda/device_memory.h"

namespace vicinal::cli {

class DeviceProblem {
 public:
  // Copies every tensor to the kernel's device.
  static Result<DeviceProblem> upload(const Kernel& kernel, HostProblem& problem, HostTensor& out,
                                      HostTensor* lse);

  const RunArguments& arguments() const { return arguments_; }
  // Waits for the device and copies the results back.
  Result<void> download(HostTensor& out, HostTensor* lse) const;
  std::size_t bytes() const;

  // Gradients of what has been run; tensors in host memory, each without gaps, are copied there and back.
  // Returns how many milliseconds the kernels took.
  Result<double> backward(const Kernel& kernel, OutputDifferentials given, Differentials wanted);
  // The same, any number of times, as `launches` likes.
  using Launches = std::function<Result<void>(const std::function<Result<void>()>& backward)>;
  Result<void> backward(const Kernel& kernel, OutputDifferentials given, Differentials wanted,
                        const Launches& launches);

 private:
  Result<void> move(const cuda::DriverApi& api, Tensor& tensor, std::size_t bytes);

  RunArguments arguments_;
  std::vector<cuda::DeviceBuffer> buffers_;
};

}  // namespace vicinal::cli
