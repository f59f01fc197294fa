// The Hopper kernels of the backward pass on the host, held against the interpreter's gradients.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "compiler/driver/compile.h"
#include "runtime/cpu/interpreter.h"
#include "runtime/hopper_backward_launch.h"
#include "runtime/kernel_impl.h"
#include "runtime/kernel_plan.h"
#include "tests/emulation/hopper_launch_on_host.h"
#include "tests/support/gradient_check.h"
#include "tests/support/kernel_gradients.h"

namespace vicinal::testing {
namespace {

using Entry = void(const void*, unsigned, unsigned);

struct Trial {
  const char* text;
  DType dtype = DType::bf16;
  int dim = 64;
  std::int64_t queries = 200, keys = 200, heads = 2, kv_heads = 1;
  bool poisoned = false;  // what nobody keeps holds NaN
};

std::string emulate(const emit::KernelSource& source, std::string_view name, std::string_view arguments) {
  return fmt::format(
      "extern \"C\" void {0}(const void* a, unsigned grid, unsigned threads) {{\n"
      "  cuda_on_host::block.begin = cuda_on_host::begin_hopper_block;\n"
      "  cuda_on_host::run(grid, threads, [&] {{ {1}(*static_cast<const {2}*>(a)); }});\n}}\n",
      name, source.entry, arguments);
}

void check(const Trial& trial) {
  CAPTURE(trial.text);
  const Spec spec = Spec::from_string(trial.text).value();
  CompileOptions compile_options;
  compile_options.backend = Backend::interpreter;
  compile_options.dtype = trial.dtype;
  compile_options.head_dim = compile_options.value_dim = trial.dim;
  const Kernel kernel = compile(spec, compile_options).value();
  const emit::Specialized variant = emit::specialize(driver::differentiated(kernel.impl().variant));
  emit::KernelOptions options;
  options.dtype = trial.dtype;
  options.head_dim = options.value_dim = trial.dim;
  const emit::HopperBackwardChoice choice = emit::choose_hopper_backward(variant, options);
  CAPTURE(choice.why);
  REQUIRE(choice.schedule.has_value());
  const emit::HopperBackwardSchedule& schedule = *choice.schedule;
  const emit::BackwardSource rows = emit::emit_backward(variant, options, emit::BackwardStep::rows);
  using Step = emit::HopperBackwardStep;
  const emit::KernelSource keys = emit::emit_hopper_backward(variant, options, schedule, Step::keys),
                           queries = emit::emit_hopper_backward(variant, options, schedule, Step::queries);
  const std::string hopper_arguments =
      "vicinal::hopper::backward::LaunchArguments<emitted::Variant::Arguments>";
  const auto rows_library = HostLibrary::build(rows.kernel.text +
                                               emulate(rows.kernel, "rows", "emitted::Variant::Arguments")),
             keys_library =
                 HostLibrary::build(products_on_host(keys.text) + emulate(keys, "keys", hopper_arguments)),
             queries_library =
                 HostLibrary::build(queries.text + emulate(queries, "queries", hopper_arguments));
  REQUIRE(rows_library.has_value());
  REQUIRE(keys_library.has_value());
  REQUIRE(queries_library.has_value());

  std::mt19937 random(7);
  ProblemShape shape;
  shape.batch = 1;
  shape.heads = trial.heads;
  shape.kv_heads = trial.kv_heads;
  shape.head_dim = shape.value_dim = trial.dim;
  shape.queries = {trial.queries};
  shape.keys = {trial.keys};
  shape.dtype = trial.dtype;
  GradientCase c = gradient_case(kernel, make_problem(shape), random);
  round_given(c, trial.dtype);
  if (trial.poisoned)
    c.problem.k.each([&](const Index& i) {
      if (i[2] == 3) c.problem.k.set(i, NAN), c.problem.v.set(i, INFINITY);
    });
  kernel.backward(c.problem.arguments(), c.given(), c.wanted()).value();

  const ir::Module& module = variant.declarations();
  const runtime::Problem bound = kernel.impl().bind(c.problem.arguments()).value();
  KernelGradients got(c, trial.dtype);
  const auto given = runtime::bind_output_differentials(module, bound, c.given(), "gradient", true).value();
  const auto wanted = runtime::bind_differentials(module, bound, got.wanted(), "gradient").value();
  const runtime::BackwardLayout layout =
      runtime::backward_layout(bound, rows.captured, false, trial.dtype).value();
  const runtime::HopperBackwardLayout hopper = runtime::hopper_backward_layout(bound, schedule);
  std::vector<std::byte> memory(layout.bytes + hopper.bytes + 256, std::byte{0xff});
  std::byte* const workspace =
      memory.data() + (256 - reinterpret_cast<std::uintptr_t>(memory.data()) % 256) % 256;
  cpu::Interpreter(kernel.impl().variant.checked.module, bound).run(1);
  runtime::PlanCache shapes;
  const plan::TileShape tiles = shapes.shape(module, bound, emit::kBackwardTile, emit::kBackwardTile);
  const runtime::BackwardProblem of{
      bound, tiles, given, wanted, layout, reinterpret_cast<std::uint64_t>(workspace), false};
  REQUIRE(!runtime::hopper_backward_obstacle(of));
  const auto first = runtime::prepare_backward(of, rows, emit::BackwardStep::rows, options, module).value();
  rows_library->symbol<Entry>("rows")(first->arguments.data(), 2, first->shape.block.x);
  for (const bool in_turn : {true, false}) {
    CAPTURE(in_turn);
    std::byte* const zeros = workspace + layout.bytes;
    std::memset(zeros, 0, hopper.bytes);
    const runtime::HopperBackwardLaunch launch{hopper, reinterpret_cast<std::uint64_t>(zeros), in_turn};
    for (const auto& [step, source, library, name] :
         {std::tuple(Step::keys, &keys, &*keys_library, "keys"),
          std::tuple(Step::queries, &queries, &*queries_library, "queries")}) {
      const runtime::Launch prepared = runtime::prepare_hopper_backward(driver_on_host(), of, launch, *source,
                                                                        schedule, step, options, module)
                                           .value();
      // Blocks follow each other here, and one of them waits for no other.
      library->symbol<Entry>(name)(prepared.arguments.data(),
                                   in_turn ? 1 : std::min(3u, prepared.shape.grid.x), prepared.shape.block.x);
    }
    unsigned poisoned;
    std::memcpy(&poisoned, zeros + hopper.poisoned, sizeof poisoned);
    CHECK(poisoned == (trial.poisoned ? 1u : 0u));
    if (!trial.poisoned) check_kernel_gradients(got, c, trial.dtype);
  }
}

}  // namespace

TEST_CASE("the Hopper backward kernels on the host agree with the interpreter") {
  check({"attention full {}", DType::f16, 64, 130, 300});
  check({"attention causal { mask = k <= q }", DType::bf16, 128, 260, 260, 4, 2});
  check(
      {"attention window {\n  axis t { window = 90, causal }\n  scale = 0.1 * (h + 1)\n  sink = 0.5\n  score "
       "= score - 0.02 * (h + 1) * (q - k)\n}",
       DType::bf16, 128, 333, 333, 4, 2});
  check({"attention strided { axis t { window = 70, stride = 30 } }", DType::bf16, 64, 290, 290});
  check(
      {"attention softcap {\n  align = end\n  score = 2.0 * tanh(score / 2.0)\n"
       "  mask = k <= q and k % 7 != 3\n}",
       DType::bf16, 128, 100, 200});
  check({"attention rows_without_keys { mask = k <= q and q % 3 != 1 }", DType::bf16, 64, 200, 200});
}

TEST_CASE("the Hopper backward kernels on the host say what is not finite") {
  check({"attention skipped { mask = k != 3 }", DType::bf16, 64, 130, 130, 2, 2, true});
}

}  // namespace vicinal::testing
