#include "tests/support/device_check.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "compiler/emit/cuda/kernel_choice.h"
#include "runtime/cuda/device_info.h"
#include "runtime/host/parallel.h"
#include "runtime/kernel_impl.h"
#include "tests/support/random_problem.h"

namespace vicinal::testing {
std::optional<cuda::Context> context_or_skip() {
  CompileOptions options;
  options.backend = Backend::cuda;
  const Result<Kernel> kernel = compile(Spec::from_string("attention t {}").value(), options);
  if (!kernel) {
    MESSAGE("skipped: ", kernel.error().message);
    return std::nullopt;
  }
  return cuda::Context::primary(*cuda::driver().value(), 0).value();
}

bool is_hopper(const cuda::Context& context) {
  return cuda::device_info(context.api(), context.device()).value().capability() == 90;
}

void compile_all(std::vector<Job>& jobs) {
  host::parallel_for(static_cast<std::int64_t>(jobs.size()), host::default_threads(), [&](std::int64_t n) {
    Job& job = jobs[static_cast<std::size_t>(n)];
    CompileOptions options;
    options.backend = Backend::cuda;
    options.dtype = job.dtype;
    options.head_dim = job.head_dim;
    options.value_dim = job.value_dim;
    options.kernel = job.kernel;
    std::mt19937 random(static_cast<unsigned>(n));
    options.input_dtypes = random_input_dtypes(job.spec, random);
    Result<Kernel> device = compile(job.spec, options);
    options.backend = Backend::interpreter;
    Result<Kernel> host = compile(job.spec, options);
    if (device && host)
      job.device = *std::move(device), job.host = *std::move(host);
    else
      job.error = (device ? host : device).error().message;
  });
}

bool takes(std::string_view kernel, const cuda::Context& context, const Spec& spec, DType dtype,
           std::int64_t dim) {
  emit::KernelOptions options;
  options.dtype = dtype;
  options.head_dim = options.value_dim = static_cast<int>(dim);
  const int capability = cuda::device_info(context.api(), context.device()).value().capability();
  return !emit::choose(emit::kernel_named(kernel).value(), spec.impl().variant.specialized, options,
                       capability)
              .candidates.empty();
}

void check_values(const cuda::Context& context, const Job& job, Problem problem, ErrorTable* table,
                  const MoreProblems& others) {
  const auto run = [&](Problem& p) { return run_on_device(context, *job.device, p, Tiles::planned); };
  const Accuracy found = check_values(*job.host, run, std::move(problem), others);
  if (table != nullptr) table->add(job.name, job.kernel, job.dtype, found.out, found.lse);
}

void check_mask(const cuda::Context& context, const Job& job, Problem problem, Tiles tiles) {
  check_mask(
      *job.host, [&](Problem& p) { return run_on_device(context, *job.device, p, tiles); },
      std::move(problem));
}

}  // namespace vicinal::testing
