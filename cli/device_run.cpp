#include "cli/device_run.h"

#include "runtime/kernel_impl.h"

namespace vicinal::cli {

Result<void> DeviceProblem::move(const cuda::DriverApi& api, Tensor& tensor, std::size_t bytes) {
  VICINAL_TRY(cuda::DeviceBuffer buffer,
              cuda::DeviceBuffer::copy_of(api, {static_cast<const std::byte*>(tensor.data), bytes}));
  tensor.data = reinterpret_cast<void*>(buffer.address());
  buffers_.push_back(std::move(buffer));
  return {};
}

Result<DeviceProblem> DeviceProblem::upload(const Kernel& kernel, HostProblem& problem, HostTensor& out,
                                            HostTensor* lse) {
  const cuda::DriverApi& api = kernel.impl().context().api();
  DeviceProblem device;
  RunArguments& a = device.arguments_ = problem.arguments(&out, lse);
  VICINAL_TRY_VOID(device.move(api, a.out, out.bytes.size()));
  if (lse != nullptr) VICINAL_TRY_VOID(device.move(api, *a.lse, lse->bytes.size()));
  VICINAL_TRY_VOID(device.move(api, a.q, problem.q.bytes.size()));
  VICINAL_TRY_VOID(device.move(api, a.k, problem.k.bytes.size()));
  VICINAL_TRY_VOID(device.move(api, a.v, problem.v.bytes.size()));
  if (a.context_k) {
    VICINAL_TRY_VOID(device.move(api, *a.context_k, problem.context_k.bytes.size()));
    VICINAL_TRY_VOID(device.move(api, *a.context_v, problem.context_v.bytes.size()));
  }
  for (auto& [name, tensor] : a.inputs)
    VICINAL_TRY_VOID(device.move(api, tensor, problem.inputs.at(name).bytes.size()));
  return device;
}

Result<void> DeviceProblem::download(HostTensor& out, HostTensor* lse) const {
  VICINAL_TRY_VOID(buffers_[0].read(out.bytes));
  return lse == nullptr ? Result<void>() : buffers_[1].read(lse->bytes);
}

std::size_t DeviceProblem::bytes() const {
  std::size_t total = 0;
  for (const cuda::DeviceBuffer& b : buffers_) total += b.size();
  return total;
}

}  // namespace vicinal::cli
