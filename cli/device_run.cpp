#include "cli/device_run.h"

#include <span>

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

Result<double> DeviceProblem::backward(const Kernel& kernel, OutputDifferentials given,
                                       Differentials wanted) {
  const cuda::DriverApi& api = kernel.impl().context().api();
  double taken = 0;
  const auto timed = [&](const std::function<Result<void>()>& launch) -> Result<void> {
    VICINAL_TRY(cuda::Event begin, cuda::Event::create(api));
    VICINAL_TRY(cuda::Event end, cuda::Event::create(api));
    VICINAL_TRY_VOID(begin.record(nullptr));
    VICINAL_TRY_VOID(launch());
    VICINAL_TRY_VOID(end.record(nullptr));
    VICINAL_TRY_VOID(end.synchronize());
    VICINAL_TRY(taken, end.milliseconds_since(begin));
    return {};
  };
  VICINAL_TRY_VOID(backward(kernel, std::move(given), std::move(wanted), timed));
  return taken;
}

Result<void> DeviceProblem::backward(const Kernel& kernel, OutputDifferentials given, Differentials wanted,
                                     const Launches& launches) {
  const cuda::DriverApi& api = kernel.impl().context().api();
  const auto bytes_of = [](const Tensor& t) {
    return static_cast<std::size_t>(product_of(t.shape)) * size_of(t.dtype);
  };
  struct Written {
    std::span<std::byte> host;
    std::size_t buffer;
  };
  std::vector<Written> written;
  const auto move_result = [&](Tensor& t) -> Result<void> {
    written.push_back({{static_cast<std::byte*>(t.data), bytes_of(t)}, buffers_.size()});
    return move(api, t, bytes_of(t));
  };
  VICINAL_TRY_VOID(move(api, *given.out, bytes_of(*given.out)));
  if (given.lse) VICINAL_TRY_VOID(move(api, *given.lse, bytes_of(*given.lse)));
  for (std::optional<Tensor>* t : {&wanted.q, &wanted.k, &wanted.v, &wanted.context_k, &wanted.context_v})
    if (*t) VICINAL_TRY_VOID(move_result(**t));
  for (auto* named : {&wanted.inputs, &wanted.params})
    for (auto& [name, t] : *named) VICINAL_TRY_VOID(move_result(t));

  VICINAL_TRY(const Support support, kernel.supports(arguments_));
  VICINAL_TRY(const cuda::DeviceBuffer workspace,
              cuda::DeviceBuffer::allocate(api, support.gradient_workspace_bytes));
  RunArguments arguments = arguments_;
  arguments.workspace = {reinterpret_cast<void*>(workspace.address()), workspace.size()};
  VICINAL_TRY_VOID(launches([&] { return kernel.backward(arguments, given, wanted); }));
  for (const Written& w : written) VICINAL_TRY_VOID(buffers_[w.buffer].read(w.host));
  return {};
}

std::size_t DeviceProblem::bytes() const {
  std::size_t total = 0;
  for (const cuda::DeviceBuffer& b : buffers_) total += b.size();
  return total;
}

}  // namespace vicinal::cli
