// What a kernel does with gradients and tangents.
#include <fmt/format.h>

#include <chrono>

#include "compiler/passes/differentiate.h"
#include "runtime/binding/differentials.h"
#include "runtime/cpu/backward.h"
#include "runtime/engine.h"
#include "runtime/kernel_impl.h"

namespace vicinal {
namespace {

// Of a run whose output nobody needs, since it is computed again.
RunArguments without_output(const RunArguments& arguments, const std::optional<Tensor>& like,
                            bool keeps_lse) {
  RunArguments result = arguments;
  if (!keeps_lse) result.lse.reset();
  if (!like) return result;
  result.out = *like;
  result.out.dtype = arguments.q.dtype;
  return result;
}

// Where forward mode is given no tangent's place for out, nothing says where out would be: q's rows do.
RunArguments with_any_output(const RunArguments& arguments, const CompileOptions& options) {
  RunArguments result = arguments;
  result.lse.reset();
  result.out = arguments.q;
  if (!result.out.shape.empty()) result.out.shape.back() = options.value_dim;
  return result;
}

Result<void> check_compiled(const Kernel::Impl& kernel) {
  if (kernel.gradients) return {};
  return unexpected(ErrorKind::spec, "the kernel was compiled without gradients",
                    "compile with CompileOptions::gradients");
}

Result<void> check_device_arguments(const Kernel::Impl& kernel, const RunArguments& arguments) {
  VICINAL_TRY_VOID(check_compiled(kernel));
  const ir::Module& module = kernel.variant.checked.module;
  if (module.normalize == ir::Normalize::softmax && !arguments.lse)
    return unexpected(ErrorKind::spec, "the lse is missing: on a device gradients are computed from it",
                      "pass the one that run() wrote");
  return {};
}

// What prepare() has made for these extents, whichever kernel the run was prepared for. Shared with who
// calls: others may let go of it.
std::shared_ptr<const Plan::Impl> remembered_plan(const Kernel::Impl& kernel,
                                                  const runtime::Problem& problem) {
  const std::vector<std::int64_t> key = runtime::plan_key(kernel.variant.checked.module, problem);
  if (auto plan = kernel.program->plans.find(key)) return plan;
  const auto& fallback = kernel.fallback;
  if (!fallback.valid() || fallback.wait_for(std::chrono::seconds(0)) != std::future_status::ready)
    return nullptr;
  return fallback.get() ? (*fallback.get())->plans.find(key) : nullptr;
}
const runtime::BackwardPlan* backward_of(const std::shared_ptr<const Plan::Impl>& plan) {
  return plan != nullptr && plan->backward ? &*plan->backward : nullptr;
}

}  // namespace

const ir::Module& Kernel::Impl::differentiated() const {
  std::call_once(differentiate_once, [&] { with_partials = passes::differentiate(variant.checked.module); });
  return with_partials;
}

const Result<std::unique_ptr<runtime::HostGradients>>& Kernel::Impl::host_gradients() const {
  std::call_once(host_gradients_once, [&] {
    const Result<runtime::Engine*> engine = runtime::Engine::process();
    if (!engine || !executor) {
      compiled_gradients = unexpected(ErrorKind::environment, info.backend == Backend::interpreter
                                                                  ? "the interpreter was asked for"
                                                                  : info.path_reason);
      return;
    }
    const Result<const cpu::CodeGeneratorApi*> generator = (*engine)->code_generator();
    compiled_gradients = generator
                             ? runtime::HostGradients::make(**generator, variant, *executor, differentiated())
                             : generator.forward_error();
  });
  return compiled_gradients;
}

Result<void> Kernel::backward(const RunArguments& arguments, const OutputDifferentials& given,
                              const Differentials& wanted, Stream stream) const {
  if (!given.out)
    return unexpected(ErrorKind::spec, "the gradient of out is missing", "pass it: it has the shape of out");
  const bool device = impl_->on_device();
  const ir::Module& module = impl_->differentiated();
  if (device) VICINAL_TRY_VOID(check_device_arguments(*impl_, arguments));
  // Generated code on the host takes what run() wrote where the lse says that it is there.
  const bool compiled = !device && impl_->host_gradients().has_value();
  const bool reads_output =
      !module.root(ir::Root::output).valid() && (device || (compiled && arguments.lse.has_value()));
  VICINAL_TRY(const runtime::Problem problem,
              impl_->bind(reads_output ? arguments : without_output(arguments, given.out, device)));
  VICINAL_TRY(const runtime::BoundOutputDifferentials from,
              runtime::bind_output_differentials(module, problem, given, "gradient", true));
  VICINAL_TRY(const runtime::BoundDifferentials to,
              runtime::bind_differentials(module, problem, wanted, "gradient"));
  if (device) {
    VICINAL_TRY(const std::size_t bytes, impl_->gradients->workspace_bytes(problem));
    const auto memory = reinterpret_cast<std::uint64_t>(arguments.workspace.data);
    if (arguments.workspace.bytes < bytes || memory % 256 != 0)
      return unexpected(ErrorKind::spec,
                        fmt::format("the workspace has {} bytes, and the gradients of this problem take {}",
                                    arguments.workspace.bytes, bytes),
                        "allocate what supports() says, aligned to 256 bytes");
    const auto plan = remembered_plan(*impl_, problem);
    return impl_->gradients->launch(problem, backward_of(plan), from, to, memory,
                                    static_cast<cuda::StreamHandle>(stream));
  }
  VICINAL_TRY(const runtime::Engine* const engine, runtime::Engine::process());
  if (compiled) return (*impl_->host_gradients())->run(problem, !reads_output, from, to, engine->threads());
  cpu::backward(module, problem, from, to, engine->threads());
  return {};
}

Result<void> Kernel::jvp(const RunArguments& arguments, const Differentials& given,
                         const OutputDifferentials& wanted, Stream stream) const {
  const bool device = impl_->on_device();
  if (device) VICINAL_TRY_VOID(check_compiled(*impl_));
  VICINAL_TRY(const runtime::Problem problem, impl_->bind(with_any_output(arguments, impl_->options)));
  const ir::Module& module = impl_->differentiated();
  VICINAL_TRY(const runtime::BoundDifferentials from,
              runtime::bind_differentials(module, problem, given, "tangent"));
  VICINAL_TRY(const runtime::BoundOutputDifferentials to,
              runtime::bind_output_differentials(module, problem, wanted, "tangent", false));
  if (device) {
    const auto plan = remembered_plan(*impl_, problem);
    return impl_->gradients->launch_tangents(problem, backward_of(plan), from, to,
                                             static_cast<cuda::StreamHandle>(stream));
  }
  VICINAL_TRY(const runtime::Engine* const engine, runtime::Engine::process());
  cpu::jvp(module, problem, from, to, engine->threads());
  return {};
}

}  // namespace vicinal
