// Kernels on a device, held against the interpreter.
#pragma once

#include <functional>
#include <optional>

#include "tests/support/accuracy_check.h"
#include "tests/support/device_problem.h"

namespace vicinal::testing {

// A device with a driver, and NVRTC to compile for it: seen by compiling the simplest spec. Says why there is
// none.
std::optional<cuda::Context> context_or_skip();
// Whether it runs the kernels of sm_90a.
bool is_hopper(const cuda::Context& context);

// check(n) for n in [0, count), on all processors, since the interpreter takes its time. What REQUIRE stops
// is the one check.
void check_each(std::size_t count, const std::function<void(std::size_t)>& check);

// For one of the device's kernels.
Job device_job(const std::string& name, const Spec& spec, DType dtype, const std::string& kernel,
               std::int64_t head_dim = 64, std::int64_t value_dim = 64);

// Whether a kernel runs the spec on the device.
bool takes(std::string_view kernel, const cuda::Context& context, const Spec& spec, DType dtype,
           std::int64_t dim = 64);

void check_values(const cuda::Context& context, const Job& job, Problem problem, ErrorTable* table,
                  const MoreProblems& others = {});
void check_mask(const cuda::Context& context, const Job& job, Problem problem, Tiles tiles);

}  // namespace vicinal::testing
