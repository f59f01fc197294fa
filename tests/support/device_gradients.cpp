#include "tests/support/device_gradients.h"

#include <doctest/doctest.h>

#include "runtime/host/parallel.h"

namespace vicinal::testing {

CompiledGradients compile_both(const GradientJob& job) {
  CompiledGradients result{job.name, job.dtype, job.deterministic, {}, {}, {}};
  CompileOptions options;
  options.dtype = job.dtype;
  options.head_dim = job.head_dim;
  options.value_dim = job.value_dim;
  options.deterministic = job.deterministic;
  options.backend = Backend::cuda;
  options.kernel = "portable";  // of the forward pass, whichever it is
  options.gradients = true;
  Result<Kernel> device = compile(job.spec, options);
  options.backend = Backend::interpreter;
  Result<Kernel> host = compile(job.spec, options);
  if (device && host)
    result.device = *std::move(device), result.host = *std::move(host);
  else
    result.error = (device ? host : device).error().message;
  return result;
}

std::vector<CompiledGradients> compile_all(const std::vector<GradientJob>& jobs) {
  std::vector<CompiledGradients> compiled(jobs.size());
  host::parallel_for(static_cast<std::int64_t>(jobs.size()), host::default_threads(), [&](std::int64_t n) {
    compiled[static_cast<std::size_t>(n)] = compile_both(jobs[static_cast<std::size_t>(n)]);
  });
  return compiled;
}

void check_gradients(const cuda::Context& context, const CompiledGradients& kernel, Problem problem,
                     std::mt19937& random) {
  GradientCase c = gradient_case(*kernel.host, std::move(problem), random);
  round_given(c, kernel.dtype);
  kernel.host->backward(c.problem.arguments(), c.given(), c.wanted()).value();
  KernelGradients first(c, kernel.dtype), second(c, kernel.dtype), planned(c, kernel.dtype);
  for (KernelGradients* g : {&first, &second, &planned}) {
    const Result<void> done = DeviceCase(context, *kernel.device, c, *g).run(g == &planned);
    REQUIRE_MESSAGE(done.has_value(), (done ? "" : done.error().message));
  }
  check_kernel_gradients(*kernel.host, {&first, &planned}, c, kernel.dtype);
  if (!kernel.deterministic) return;
  CHECK(first.q.bytes() == second.q.bytes());
  CHECK(first.k.bytes() == second.k.bytes());
  CHECK(first.v.bytes() == second.v.bytes());
  for (const auto& [name, t] : first.inputs) CHECK(t.bytes() == second.inputs.at(name).bytes());
}

void check_tangents(const cuda::Context& context, const CompiledGradients& kernel, Problem problem,
                    std::mt19937& random) {
  GradientCase c = gradient_case(*kernel.host, std::move(problem), random);
  KernelGradients tangents = random_tangents(c, kernel.dtype, random);
  HostTensor out(DType::f64, c.d_out.shape()), lse(DType::f64, c.d_lse.shape());
  OutputDifferentials wanted{.out = out.view(), .lse = std::nullopt};
  if (!c.d_lse.shape().empty()) wanted.lse = lse.view();
  kernel.host->jvp(c.problem.arguments(), tangents.wanted(), wanted).value();
  HostTensor got_out(kernel.dtype, c.d_out.shape()), got_lse(DType::f32, c.d_lse.shape());
  const Result<void> done = DeviceCase(context, *kernel.device, c, tangents).push(got_out, got_lse);
  REQUIRE_MESSAGE(done.has_value(), (done ? "" : done.error().message));
  check_differential("out", got_out, out, kernel.dtype);
  if (wanted.lse) check_differential("lse", got_lse, lse, kernel.dtype);
}

}  // namespace vicinal::testing
