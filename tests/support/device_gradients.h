// Gradients and tangents on the device, of kernels that are compiled for it and for the interpreter.
#pragma once

#include "runtime/cuda/device_memory.h"
#include "tests/support/device_check.h"
#include "tests/support/kernel_gradients.h"

namespace vicinal::testing {

// Copies of a case's tensors on the device, and of what comes back.
class DeviceCase {
 public:
  DeviceCase(const cuda::Context& context, const Kernel& kernel, GradientCase& c, KernelGradients& gradients)
      : scope_(context), context_(context), kernel_(kernel), c_(c), gradients_(gradients) {}

  // Reverse mode. `plans`: tiles are listed where they can be. `graph`: captured, and replayed twice.
  Result<void> run(bool plans, bool graph = false) {
    VICINAL_TRY(const cuda::Stream stream, cuda::Stream::create(context_.api()));
    VICINAL_TRY(RunArguments a, upload_arguments());
    if (plans) VICINAL_TRY_VOID(kernel_.prepare(a, stream.handle()));
    VICINAL_TRY_VOID(kernel_.run(a, stream.handle()));

    OutputDifferentials given = c_.given();
    VICINAL_TRY_VOID(upload(c_.d_out, *given.out));
    if (given.lse) VICINAL_TRY_VOID(upload(c_.d_lse, *given.lse));
    VICINAL_TRY(const Differentials wanted, upload_differentials(true));
    VICINAL_TRY(const Support support, kernel_.supports(a));
    VICINAL_TRY(cuda::DeviceBuffer workspace,
                cuda::DeviceBuffer::allocate(context_.api(), support.gradient_workspace_bytes));
    VICINAL_TRY_VOID(workspace.fill(0xff, stream.handle()));
    a.workspace = {reinterpret_cast<void*>(workspace.address()), workspace.size()};
    const auto launch = [&] { return kernel_.backward(a, given, wanted, stream.handle()); };
    if (graph) {
      VICINAL_TRY(const cuda::Graph captured, cuda::Graph::capture(context_.api(), stream.handle(), launch));
      for (int n = 0; n < 2; ++n) VICINAL_TRY_VOID(captured.launch(stream.handle()));
      return download(stream);
    }
    VICINAL_TRY_VOID(launch());
    return download(stream);
  }

  // Forward mode, from what the gradients' places hold.
  Result<void> push(HostTensor& out, HostTensor& lse) {
    VICINAL_TRY(const cuda::Stream stream, cuda::Stream::create(context_.api()));
    VICINAL_TRY(const RunArguments a, upload_arguments());
    VICINAL_TRY(const Differentials given, upload_differentials(false));
    OutputDifferentials wanted{.out = out.view(), .lse = std::nullopt};
    VICINAL_TRY_VOID(result(out, *wanted.out));
    if (a.lse) {
      wanted.lse = lse.view();
      VICINAL_TRY_VOID(result(lse, *wanted.lse));
    }
    VICINAL_TRY_VOID(kernel_.jvp(a, given, wanted, stream.handle()));
    return download(stream);
  }

 private:
  Result<RunArguments> upload_arguments() {
    RunArguments a = c_.problem.arguments();
    VICINAL_TRY_VOID(upload(c_.problem.q, a.q));
    VICINAL_TRY_VOID(upload(c_.problem.k, a.k));
    VICINAL_TRY_VOID(upload(c_.problem.v, a.v));
    VICINAL_TRY_VOID(upload(c_.problem.out, a.out));
    if (a.lse) VICINAL_TRY_VOID(upload(c_.problem.lse, *a.lse));
    if (a.context_k) {
      VICINAL_TRY_VOID(upload(c_.problem.context_k, *a.context_k));
      VICINAL_TRY_VOID(upload(c_.problem.context_v, *a.context_v));
    }
    for (auto& [name, tensor] : a.inputs) VICINAL_TRY_VOID(upload(c_.problem.inputs.at(name), tensor));
    return a;
  }
  Result<Differentials> upload_differentials(bool results) {
    Differentials d = gradients_.wanted();
    const auto move = [&](HostTensor& host, Tensor& view) {
      return results ? result(host, view) : upload(host, view);
    };
    VICINAL_TRY_VOID(move(gradients_.q, *d.q));
    VICINAL_TRY_VOID(move(gradients_.k, *d.k));
    VICINAL_TRY_VOID(move(gradients_.v, *d.v));
    if (gradients_.context) {
      VICINAL_TRY_VOID(move(gradients_.context_k, *d.context_k));
      VICINAL_TRY_VOID(move(gradients_.context_v, *d.context_v));
    }
    for (auto& [name, t] : gradients_.inputs) VICINAL_TRY_VOID(move(t, d.inputs.at(name)));
    for (auto& [name, t] : gradients_.params) VICINAL_TRY_VOID(move(t, d.params.at(name)));
    return d;
  }
  Result<void> download(const cuda::Stream& stream) {
    for (const auto& [host, buffer] : results_)
      VICINAL_TRY_VOID(buffers_[buffer].read(host->bytes(), stream.handle()));
    return stream.synchronize();
  }

  Result<void> upload(const HostTensor& host, Tensor& view) {
    VICINAL_TRY(cuda::DeviceBuffer buffer, cuda::DeviceBuffer::copy_of(context_.api(), host.bytes()));
    const std::uint64_t first =
        buffer.address() + static_cast<std::uint64_t>(host.origin()) * size_of(host.dtype());
    view.data = host.bytes().empty() ? nullptr : reinterpret_cast<void*>(first);
    buffers_.push_back(std::move(buffer));
    return {};
  }
  Result<void> result(HostTensor& host, Tensor& view) {
    VICINAL_TRY_VOID(upload(host, view));
    results_.emplace_back(&host, buffers_.size() - 1);
    return {};
  }

  const cuda::ContextScope scope_;
  const cuda::Context& context_;
  const Kernel& kernel_;
  GradientCase& c_;
  KernelGradients& gradients_;
  std::vector<cuda::DeviceBuffer> buffers_;
  std::vector<std::pair<HostTensor*, std::size_t>> results_;
};

struct GradientJob {
  std::string name;
  Spec spec;
  DType dtype = DType::f32;
  std::int64_t head_dim = 64, value_dim = 48;
  bool deterministic = true;
};
struct CompiledGradients {
  std::string name = {};
  DType dtype = DType::f32;
  bool deterministic = true;
  std::optional<Kernel> device = {}, host = {};
  std::string error = {};
};
CompiledGradients compile_both(const GradientJob& job);
// NVRTC takes most of the time, so all kernels are compiled first, on all processors.
std::vector<CompiledGradients> compile_all(const std::vector<GradientJob>& jobs);

// With and without lists of tiles; the same bits twice, where the kernel promises that.
void check_gradients(const cuda::Context& context, const CompiledGradients& kernel, Problem problem,
                     std::mt19937& random);
void check_tangents(const cuda::Context& context, const CompiledGradients& kernel, Problem problem,
                    std::mt19937& random);

}  // namespace vicinal::testing
