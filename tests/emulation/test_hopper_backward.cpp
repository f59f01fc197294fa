// The Hopper kernels of the backward pass on the host, held against the interpreter's gradients.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "compiler/driver/compile.h"
#include "runtime/cpu/interpreter.h"
#include "runtime/hopper_backward_launch.h"
#include "runtime/kernel_impl.h"
#include "runtime/kernel_plan.h"
#include "tests/emulation/forward_on_host.h"
#include "tests/support/gallery.h"
#include "tests/support/gradient_check.h"
#include "tests/support/kernel_gradients.h"
#include "tests/support/random_problem.h"

namespace vicinal::testing {
namespace {

struct Trial {
  const char* text;
  DType dtype = DType::bf16;
  int dim = 64;
  Index queries = {200}, keys = {200};
  std::int64_t heads = 2, kv_heads = 1;
  bool poisoned = false;  // what nobody keeps holds NaN
  Layout layout = Layout::bhnd;
};

// The kernels of a variant for one dtype and head dim.
struct Emulated {
  emit::Specialized variant;
  emit::KernelOptions options;
  emit::HopperBackwardSchedule schedule;
  emit::BackwardSource rows;
  emit::KernelSource steps[3];  // by HopperBackwardStep
  HostLibrary libraries[3];
  std::optional<emit::PlannerSource> planner;
  HostLibrary planner_rows, planner_tables;

  static std::optional<Emulated> build(const Kernel& kernel, std::string* why) {
    const CompileOptions& compiled = kernel.impl().options;
    Emulated made{
        emit::specialize(driver::differentiated(kernel.impl().variant)), {}, {}, {}, {}, {}, {}, {}, {}};
    made.options.dtype = compiled.dtype;
    made.options.head_dim = static_cast<int>(compiled.head_dim);
    made.options.value_dim = static_cast<int>(compiled.value_dim);
    const emit::HopperBackwardChoice choice = emit::choose_hopper_backward(made.variant, made.options);
    if (!choice.schedule) {
      *why = choice.why;
      return std::nullopt;
    }
    made.schedule = *choice.schedule;
    made.rows = emit::emit_backward(made.variant, made.options, emit::BackwardStep::rows);
    for (const emit::HopperBackwardStep step : emit::kHopperBackwardSteps) {
      const auto i = static_cast<std::size_t>(step);
      made.steps[i] = emit::emit_hopper_backward(made.variant, made.options, made.schedule, step);
      made.libraries[i] =
          library(made.steps[i], "vicinal::hopper::backward::LaunchArguments<emitted::Variant::Arguments>");
    }
    if (made.schedule.planned) {
      made.planner = emit::emit_planner(made.variant, made.options, emit::TileList::pairs);
      emit::KernelSource source = made.planner->rows;
      made.planner_rows = library(source, "emitted::Mask::Arguments");
      source.entry = made.planner->tables_entry;
      if (!source.entry.empty()) made.planner_tables = library(source, "emitted::Mask::Arguments");
    }
    return made;
  }

  static HostLibrary library(const emit::KernelSource& source, std::string_view arguments) {
    const auto built = build_on_host(source, arguments);
    REQUIRE(built.has_value());
    return *built;
  }
};

void launch(const HostLibrary& library, const runtime::Launch& launch, unsigned most_blocks) {
  library.symbol<Entry>("emulate")(launch.arguments.data(), std::min(most_blocks, launch.shape.grid.x),
                                   launch.shape.block.x);
}

// Bits of the pairs of tiles, in the workspace.
void plan_pairs(const Emulated& emulated, const runtime::Problem& problem,
                const runtime::HopperBackwardLaunch& how) {
  const auto planned =
      runtime::prepare_planner(*emulated.planner, emulated.options, emulated.variant.declarations(), problem,
                               *how.layout.plan, how.workspace + how.layout.pairs, how.tiles(problem))
          .value();
  if (!planned) return;
  const auto run = [&](const HostLibrary& library, const cuda::LaunchShape& shape) {
    library.symbol<Entry>("emulate")(planned->arguments.data(), shape.grid.x, shape.block.x);
  };
  if (planned->tables) run(emulated.planner_tables, *planned->tables);
  run(emulated.planner_rows, planned->rows);
}

// `poisoned`: something is not finite, and the portable kernels compute everything again. False where the
// copy engine does not take the tensors.
bool check(const Kernel& kernel, const Emulated& emulated, GradientCase& c, bool poisoned) {
  const DType dtype = emulated.options.dtype;
  kernel.backward(c.problem.arguments(), c.given(), c.wanted()).value();
  GradientCase computed = c;  // those of captured tensors are other kernels'
  computed.inputs.clear();
  computed.params.clear();
  const ir::Module& module = emulated.variant.declarations();
  const runtime::Problem bound = kernel.impl().bind(c.problem.arguments()).value();
  KernelGradients got(c, dtype);
  const auto given = runtime::bind_output_differentials(module, bound, c.given(), "gradient", true).value();
  const auto wanted = runtime::bind_differentials(module, bound, got.wanted(), "gradient").value();
  const runtime::BackwardLayout layout =
      runtime::backward_layout(bound, emulated.rows.captured, false, dtype).value();
  const std::optional<plan::TileShape> shape = runtime::hopper_backward_shape(bound, emulated.schedule);
  if (!shape) return false;
  const plan::TileShape& boxes = *shape;
  const runtime::HopperBackwardLayout hopper =
      runtime::hopper_backward_layout(bound, boxes, emulated.schedule,
                                      emulated.planner ? &*emulated.planner : nullptr)
          .value();
  std::vector<std::byte> memory(layout.bytes + hopper.bytes + 256, std::byte{0xff});
  std::byte* const workspace =
      memory.data() + (256 - reinterpret_cast<std::uintptr_t>(memory.data()) % 256) % 256;
  cpu::Interpreter(kernel.impl().variant.checked.module, bound).run(1);
  runtime::PlanCache shapes;
  const plan::TileShape tiles = shapes.shape(module, bound, emit::kBackwardTile, emit::kBackwardTile);
  const runtime::BackwardTiles in_reach = runtime::backward_tiles(bound, tiles);
  runtime::BackwardProblem of{
      bound, tiles, in_reach, given, wanted, layout, reinterpret_cast<std::uint64_t>(workspace), false};
  if (runtime::hopper_backward_obstacle(of)) return false;
  std::byte* const zeros = workspace + layout.bytes;
  of.only_if = reinterpret_cast<std::uint64_t>(zeros + hopper.poisoned);
  const auto portable = [&](emit::BackwardStep step) {
    return runtime::prepare_backward(of, emit::emit_backward(emulated.variant, emulated.options, step), step,
                                     emulated.options, module)
        .value();
  };
  for (const bool in_turn : {true, false}) {
    CAPTURE(in_turn);
    std::memset(zeros, 0xff, hopper.bytes);
    std::memset(zeros, 0, hopper.cleared);
    const runtime::HopperBackwardLaunch how{boxes, hopper, reinterpret_cast<std::uint64_t>(zeros), in_turn};
    if (emulated.planner) plan_pairs(emulated, bound, how);
    for (const emit::HopperBackwardStep step : emit::kHopperBackwardSteps) {
      const auto i = static_cast<std::size_t>(step);
      const runtime::Launch prepared =
          runtime::prepare_hopper_backward(driver_on_host(), of, how, emulated.steps[i], step,
                                           emulated.options, module)
              .value();
      launch(emulated.libraries[i], prepared, 3);
    }
    unsigned flag;
    std::memcpy(&flag, zeros + hopper.poisoned, sizeof flag);
    CHECK(flag == (poisoned ? 1u : 0u));
    for (const auto step : {emit::BackwardStep::queries, emit::BackwardStep::keys}) {
      if (!poisoned) continue;
      const emit::BackwardSource source = emit::emit_backward(emulated.variant, emulated.options, step);
      launch(Emulated::library(source.kernel, "emitted::Variant::Arguments"), *portable(step), 2);
    }
    check_kernel_gradients(kernel, {&got}, computed, dtype);
  }
  return true;
}

CompileOptions options_for(DType dtype, int dim) {
  CompileOptions options;
  options.backend = Backend::interpreter;
  options.dtype = dtype;
  options.head_dim = options.value_dim = dim;
  return options;
}

void check(const Trial& trial) {
  CAPTURE(trial.text);
  const Kernel kernel =
      compile(Spec::from_string(trial.text).value(), options_for(trial.dtype, trial.dim)).value();
  std::string why;
  const std::optional<Emulated> emulated = Emulated::build(kernel, &why);
  REQUIRE_MESSAGE(emulated.has_value(), why);
  std::mt19937 random(7);
  ProblemShape shape;
  shape.batch = 1;
  shape.heads = trial.heads;
  shape.kv_heads = trial.kv_heads;
  shape.head_dim = shape.value_dim = trial.dim;
  shape.queries = trial.queries;
  shape.keys = trial.keys;
  shape.layout = trial.layout;
  shape.dtype = trial.dtype;
  GradientCase c = gradient_case(kernel, make_problem(shape), random);
  round_given(c, trial.dtype);
  if (trial.poisoned)
    c.problem.k.each([&](const Index& i) {
      if (i[2] == 3) c.problem.k.set(i, NAN), c.problem.v.set(i, INFINITY);
    });
  CHECK(check(kernel, *emulated, c, trial.poisoned));
}

}  // namespace

TEST_CASE("the Hopper backward kernels on the host agree with the interpreter") {
  check({"attention full {}", DType::f16, 64, {130}, {300}});
  check({"attention causal { mask = k <= q }", DType::bf16, 128, {260}, {260}, 4, 2});
  check(
      {"attention window {\n  axis t { window = 90, causal }\n  scale = 0.1 * (h + 1)\n  sink = 0.5\n  score "
       "= score - 0.02 * (h + 1) * (q - k)\n}",
       DType::bf16,
       128,
       {333},
       {333},
       4,
       2});
  check({"attention strided { axis t { window = 70, stride = 30 } }", DType::bf16, 64, {290}, {290}});
  check({"attention gentle_softcap {\n  score = 30.0 * tanh(score / 30.0)\n  mask = k <= q\n}"});
  check(
      {"attention softcap {\n  align = end\n  score = 2.0 * tanh(score / 2.0)\n"
       "  mask = k <= q and k % 7 != 3\n}",
       DType::bf16,
       128,
       {100},
       {200}});
  check({"attention rows_without_keys { mask = k <= q and q % 3 != 1 }", DType::bf16, 64, {200}, {200}});
}

TEST_CASE("the Hopper backward kernels on the host: grids of several axes") {
  check({"attention plane {\n  axis y { window = 5 }\n  axis x { window = 9, stride = 3 }\n}",
         DType::bf16,
         64,
         {11, 27},
         {11, 27}});
  check(
      {"attention volume {\n  axis t { window = 3, causal }\n  axis y { window = 4 }\n  axis x { window = 7 "
       "}\n"
       "  score = 3.0 * tanh(score / 3.0)\n  mask = k.y % 5 != 2\n}",
       DType::f16,
       128,
       {4, 6, 13},
       {4, 6, 13},
       2,
       2,
       false,
       Layout::bnhd});
}

TEST_CASE("the Hopper backward kernels on the host: dilation") {
  check({"attention line {\n  axis t { window = 20, dilation = 5, causal }\n  sink = 0.25\n}",
         DType::bf16,
         128,
         {203},
         {203}});
  check(
      {"attention plane {\n  axis y { window = 3, dilation = 3 }\n  axis x { window = 5, stride = 2, "
       "dilation = "
       "11 }\n  mask = k.y % 5 != 2\n}",
       DType::f16,
       64,
       {10, 57},
       {10, 57}});
  check(
      {"attention volume {\n  axis t { window = 3 }\n  axis y { window = 2, dilation = 4 }\n  axis x { "
       "window = 3, "
       "dilation = 2 }\n}",
       DType::bf16,
       128,
       {4, 9, 8},
       {4, 9, 8},
       2,
       2,
       false,
       Layout::bnhd});
}

TEST_CASE("the Hopper backward kernels on the host: bits of pairs of tiles") {
  // Of masks that read inputs, by head and batch too.
  for (const char* mask : {"document[q] == document[k]", "k <= q and document[q] >= document[k] - h",
                           "document[q] == document[k] or k % 64 == b"}) {
    const Kernel kernel =
        compile(Spec::from_string(fmt::format("attention planned {{\n  input document: int[tokens]\n"
                                              "  mask = {}\n}}",
                                              mask))
                    .value(),
                options_for(DType::bf16, 64))
            .value();
    CAPTURE(mask);
    std::string why;
    const std::optional<Emulated> emulated = Emulated::build(kernel, &why);
    REQUIRE_MESSAGE(emulated.has_value(), why);
    CHECK(emulated->planner.has_value());
    std::mt19937 random(3);
    ProblemShape shape;
    shape.batch = 2;
    shape.heads = 2;
    shape.head_dim = shape.value_dim = 64;
    shape.queries = shape.keys = {430};
    shape.dtype = DType::bf16;
    Problem problem = make_problem(shape);
    problem.inputs["document"] = documents(430, 97);
    GradientCase c = gradient_case(kernel, std::move(problem), random);
    round_given(c, DType::bf16);
    CHECK(check(kernel, *emulated, c, false));
  }
}

TEST_CASE("what is not finite leaves the Hopper backward kernels for the portable ones") {
  check({"attention skipped { mask = k != 3 }", DType::bf16, 64, {130}, {130}, 2, 2, true});
}

TEST_CASE("the Hopper backward kernels on the host: the gallery" *
          doctest::skip(std::getenv("VICINAL_EMULATE") == nullptr)) {
  unsigned seed = 0;
  for (const GalleryBlock& block : gallery()) {
    CAPTURE(block.name);
    ++seed;
    const Kernel kernel =
        compile(block.spec, options_for(seed % 2 == 0 ? DType::bf16 : DType::f16, seed % 4 < 2 ? 64 : 128))
            .value();
    std::string why;
    const std::optional<Emulated> emulated = Emulated::build(kernel, &why);
    if (!emulated) {
      MESSAGE(block.name, ": ", why);
      continue;
    }
    std::mt19937 random(seed);
    for (bool done = false; !done;) {
      std::optional<Problem> problem = random_problem(kernel, random, {.tokens = 300});
      REQUIRE(problem.has_value());
      GradientCase c = gradient_case(kernel, *std::move(problem), random);
      round_given(c, kernel.impl().options.dtype);
      done = check(kernel, *emulated, c, false);
    }
  }
}

}  // namespace vicinal::testing
