#include "tests/support/device_check.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "compiler/emit/cuda/kernel_choice.h"
#include "runtime/cuda/device_info.h"
#include "runtime/host/parallel.h"
#include "runtime/kernel_impl.h"

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

void check_each(std::size_t count, const std::function<void(std::size_t)>& check) {
  host::parallel_for(static_cast<std::int64_t>(count), host::default_threads(), [&](std::int64_t n) {
    try {
      check(static_cast<std::size_t>(n));
    } catch (const doctest::detail::TestFailureException&) {
      // It has been counted.
    } catch (const std::exception& error) {
      FAIL_CHECK(error.what());
    }
  });
}

Job device_job(const std::string& name, const Spec& spec, DType dtype, const std::string& kernel,
               std::int64_t head_dim, std::int64_t value_dim) {
  Job job{name, spec};
  job.options.backend = Backend::cuda;
  job.options.dtype = dtype;
  job.options.kernel = kernel;
  job.options.head_dim = head_dim;
  job.options.value_dim = value_dim;
  return job;
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
  const auto run = [&](Problem& p) { return run_on_device(context, *job.tested, p, Tiles::planned); };
  const Accuracy found = check_values(*job.host, run, std::move(problem), others);
  if (table != nullptr) table->add(job.name, job.options.kernel, job.options.dtype, found.out, found.lse);
}

void check_mask(const cuda::Context& context, const Job& job, Problem problem, Tiles tiles) {
  check_mask(
      *job.host, [&](Problem& p) { return run_on_device(context, *job.tested, p, tiles); },
      std::move(problem));
}

}  // namespace vicinal::testing
