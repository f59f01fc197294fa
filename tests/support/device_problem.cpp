#include "tests/support/device_problem.h"

#include <vector>

#include "runtime/cuda/device_memory.h"

namespace vicinal::testing {

Result<void> run_on_device(const cuda::Context& context, const Kernel& kernel, Problem& problem,
                           Tiles tiles) {
  const cuda::ContextScope scope(context);
  VICINAL_TRY(const cuda::Stream stream, cuda::Stream::create(context.api()));
  std::vector<cuda::DeviceBuffer> buffers;
  const auto upload = [&](const HostTensor& host, Tensor& view) -> Result<void> {
    VICINAL_TRY(cuda::DeviceBuffer buffer, cuda::DeviceBuffer::copy_of(context.api(), host.bytes()));
    const std::uint64_t first =
        buffer.address() + static_cast<std::uint64_t>(host.origin()) * size_of(host.dtype());
    view.data = host.bytes().empty() ? nullptr : reinterpret_cast<void*>(first);
    buffers.push_back(std::move(buffer));
    return {};
  };
  RunArguments a = problem.arguments();
  VICINAL_TRY_VOID(upload(problem.out, a.out));
  if (a.lse) VICINAL_TRY_VOID(upload(problem.lse, *a.lse));
  const std::size_t results = buffers.size();
  VICINAL_TRY_VOID(upload(problem.q, a.q));
  VICINAL_TRY_VOID(upload(problem.k, a.k));
  VICINAL_TRY_VOID(upload(problem.v, a.v));
  if (a.context_k) {
    VICINAL_TRY_VOID(upload(problem.context_k, *a.context_k));
    VICINAL_TRY_VOID(upload(problem.context_v, *a.context_v));
  }
  for (auto& [name, tensor] : a.inputs) VICINAL_TRY_VOID(upload(problem.inputs.at(name), tensor));
  if (tiles == Tiles::planned_in_run) {
    VICINAL_TRY(const Support support, kernel.supports(a));
    VICINAL_TRY(cuda::DeviceBuffer workspace,
                cuda::DeviceBuffer::allocate(context.api(), support.workspace_bytes));
    a.workspace = {reinterpret_cast<void*>(workspace.address()), workspace.size()};
    buffers.push_back(std::move(workspace));
  }
  std::optional<Plan> plan;  // lives until the work is done
  if (tiles == Tiles::planned) {
    VICINAL_TRY(plan, kernel.prepare(a, stream.handle()));
    VICINAL_TRY_VOID(kernel.run(a, *plan, stream.handle()));
  } else {
    VICINAL_TRY_VOID(kernel.run(a, stream.handle()));
  }
  VICINAL_TRY_VOID(buffers[0].read(problem.out.bytes(), stream.handle()));
  if (results > 1) VICINAL_TRY_VOID(buffers[1].read(problem.lse.bytes(), stream.handle()));
  return stream.synchronize();
}

}  // namespace vicinal::testing
