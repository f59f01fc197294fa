// A compiled kernel that has run runs again without asking for memory.
#include <doctest/doctest.h>

#include "runtime/kernel_impl.h"
#include "tests/support/allocations.h"
#include "tests/support/code_generator.h"
#include "tests/support/gallery.h"
#include "tests/support/random_problem.h"

namespace vicinal::testing {
namespace {

// Whether kernels can be generated and allocations counted; says what is missing.
bool skipped() {
  const bool lacks = lacks_code_generator();
  if (!counts_allocations()) MESSAGE("skipped: the sanitizer has an allocator of its own");
  return lacks || !counts_allocations();
}

template <class Run>
std::int64_t allocations_of_later_runs(const Run& run) {
  REQUIRE(run().has_value());
  const std::int64_t before = allocations();
  bool done = true;
  for (int i = 0; i < 4; ++i) done = done && run().has_value();
  const std::int64_t after = allocations();
  CHECK(done);
  return after - before;
}

TEST_CASE("allocations are counted") {
  if (!counts_allocations()) return;
  const std::int64_t before = allocations();
  const auto vector = std::make_unique<std::vector<int>>(1000);
  CHECK(allocations() == before + 2);
}

TEST_CASE("later runs of a compiled kernel allocate nothing") {
  if (skipped()) return;
  std::mt19937 random(23);
  int run_with_own_plan = 0;
  for (const GalleryBlock& block : gallery()) {
    CAPTURE(block.name);
    CompileOptions options;
    options.backend = Backend::cpu;
    options.dtype = DType::f32;
    options.head_dim = 16;
    const Kernel kernel = compile(block.spec, options).value();
    REQUIRE(kernel.info().path == "cpu/jit");
    std::optional<Problem> problem = random_problem(kernel, random, {.tokens = 60});
    REQUIRE(problem.has_value());
    const RunArguments arguments = problem->arguments();
    const Plan plan = kernel.prepare(arguments).value();
    CHECK(allocations_of_later_runs([&] { return kernel.run(arguments, plan); }) == 0);
    // What is read from inputs is planned anew for each run.
    if (plan.depends_on_data()) continue;
    CHECK(allocations_of_later_runs([&] { return kernel.run(arguments); }) == 0);
    ++run_with_own_plan;
  }
  CHECK(run_with_own_plan > 20);
}

TEST_CASE("a run with other tensors of the same shapes allocates nothing, and reads these") {
  if (skipped()) return;
  const Spec spec =
      Spec::from_string("attention t {\n input s: float[heads]\n score = s[h] * score\n}").value();
  CompileOptions options;
  options.backend = Backend::cpu;
  options.dtype = DType::f32;
  options.head_dim = 8;
  const Kernel kernel = compile(spec, options).value();
  ProblemShape shape;
  shape.dtype = DType::f32;
  shape.lse = true;
  Problem problems[] = {make_problem(shape, 1), make_problem(shape, 2)};
  std::vector<std::byte> alone[2];
  std::vector<RunArguments> arguments;
  for (int i = 0; i < 2; ++i) {
    problems[i].inputs["s"] = HostTensor(DType::f32, {problems[i].shape.heads}).fill(0.5 + i);
    arguments.push_back(problems[i].arguments());
    // A kernel that has seen no other tensors.
    REQUIRE(compile(spec, options)->run(arguments.back()).has_value());
    alone[i] = problems[i].out.bytes();
    problems[i].out.fill(0.0);
  }
  REQUIRE(alone[0] != alone[1]);
  REQUIRE(kernel.run(arguments[0]).has_value());
  REQUIRE(kernel.run(arguments[0]).has_value());
  problems[0].out.fill(0.0);
  const std::int64_t before = allocations();
  const bool done = kernel.run(arguments[1]).has_value() && kernel.run(arguments[0]).has_value();
  CHECK(allocations() == before);
  CHECK(done);
  for (int i = 0; i < 2; ++i) CHECK(problems[i].out.bytes() == alone[i]);
  // Without data a tensor of the same shape is refused as ever.
  arguments[0].inputs["s"].data = nullptr;
  CHECK(!kernel.run(arguments[0]).has_value());
}

}  // namespace
}  // namespace vicinal::testing
