// The Hopper kernels of the backward pass against the interpreter, through the public API: lengths around
// tiles, heads, layouts, grids of several axes, rows that keep nothing; in one order, and in any.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "tests/support/device_gradients.h"

namespace vicinal::testing {
namespace {

struct Trial {
  const char* text;
  Index tokens;
  std::int64_t heads = 4, kv_heads = 2;
  Layout layout = Layout::bhnd;
  std::int64_t document = 0;  // tokens of one; 0: no input of that name
};
constexpr int kDims[] = {64, 128};

const Trial kTrials[] = {
    {"attention full {}", {1000}},
    {"attention full {}", {1}},
    {"attention causal { mask = k <= q }", {129}},
    {"attention causal { mask = k <= q }", {1500}, 6, 1},
    {"attention alibi {\n  mask = k <= q\n  score = score - 0.02 * (h + 1) * (q - k)\n}", {700}},
    {"attention window {\n  axis t { window = 190, causal }\n  scale = 0.1 * (h + 1)\n  sink = 0.5\n}",
     {1200},
     4,
     2,
     Layout::bnhd},
    {"attention strided { axis t { window = 300, stride = 70 } }", {900}},
    {"attention gentle_softcap {\n  score = 30.0 * tanh(score / 30.0)\n  mask = k <= q\n}", {300}},
    {"attention softcap {\n  score = 2.0 * tanh(score / 2.0)\n  mask = k <= q and k % 7 != 3\n}", {400}},
    {"attention documents {\n  input document: int[tokens]\n  mask = document[q] == document[k]\n}",
     {1000},
     4,
     2,
     Layout::bnhd,
     137},
    {"attention by_head_and_batch {\n  input document: int[tokens]\n"
     "  mask = k <= q and document[q] <= document[k] + h or k % 64 == b\n}",
     {700},
     4,
     4,
     Layout::bhnd,
     90},
    {"attention rows_without_keys { mask = k <= q and q % 3 != 1 }", {500}},
    {"attention plane {\n  axis y { window = 9 }\n  axis x { window = 13, stride = 3 }\n}", {40, 52}},
    {"attention dilated { axis t { window = 40, dilation = 9, stride = 8 } }", {1001}},
    {"attention dilated_plane {\n  axis y { window = 5, dilation = 3 }\n  axis x { window = 9, dilation = 11 "
     "}\n}",
     {40, 110},
     4,
     2,
     Layout::bnhd},
    {"attention volume {\n  axis t { window = 5, causal }\n  axis y { window = 6 }\n  axis x { window = 9 }\n"
     "  mask = k.y % 5 != 2\n}",
     {7, 12, 20},
     2,
     2,
     Layout::bnhd},
};

Problem sequence_of(int dim, std::int64_t tokens) {
  ProblemShape shape;
  shape.head_dim = shape.value_dim = dim;
  shape.queries = shape.keys = {tokens};
  shape.dtype = DType::bf16;
  return make_problem(shape);
}
GradientCase rounded_case(const CompiledGradients& kernel, int dim, std::int64_t tokens) {
  std::mt19937 random(9);
  GradientCase c = gradient_case(*kernel.host, sequence_of(dim, tokens), random);
  round_given(c, kernel.dtype);
  return c;
}

}  // namespace

TEST_CASE("gradients on Hopper's tensor cores") {
  const auto context = context_or_skip();
  if (!context) return;
  if (!is_hopper(*context)) {
    MESSAGE("skipped: the device is not of compute capability 9.0");
    return;
  }
  std::vector<GradientJob> jobs;
  std::vector<Problem> problems;
  for (const Trial& trial : kTrials)
    for (const int dim : kDims) {
      const std::size_t n = jobs.size();
      const DType dtype = n % 4 < 2 ? DType::bf16 : DType::f16;
      jobs.push_back({fmt::format("{} {}", trial.text, dim), Spec::from_string(trial.text).value(), dtype,
                      dim, dim, n % 3 != 2});
      ProblemShape shape;
      shape.heads = trial.heads;
      shape.kv_heads = trial.kv_heads;
      shape.head_dim = shape.value_dim = dim;
      shape.queries = shape.keys = trial.tokens;
      shape.dtype = dtype;
      shape.layout = trial.layout;
      problems.push_back(make_problem(shape, static_cast<unsigned>(n)));
      if (trial.document != 0)
        problems.back().inputs["document"] = documents(trial.tokens[0], trial.document);
    }
  const std::vector<CompiledGradients> compiled = compile_all(jobs);
  check_each(jobs.size(), [&](std::size_t n) {
    std::mt19937 random(static_cast<unsigned>(n));
    CAPTURE(jobs[n].name);
    REQUIRE_MESSAGE(compiled[n].device.has_value(), compiled[n].error);
    CAPTURE(compiled[n].device->info().gradient_path_reason);
    CHECK(compiled[n].device->info().gradient_path == "cuda/hopper");
    check_gradients(*context, compiled[n], problems[n], random);
  });
}

TEST_CASE("gradients on Hopper's tensor cores are the same to the bit over 20 runs") {
  const auto context = context_or_skip();
  if (!context || !is_hopper(*context)) return;
  const Spec spec = Spec::from_string("attention causal { mask = k <= q }").value();
  const CompiledGradients kernel = compile_both({"causal", spec, DType::bf16, 128, 128});
  REQUIRE_MESSAGE(kernel.device.has_value(), kernel.error);
  GradientCase c = rounded_case(kernel, 128, 2000);
  KernelGradients first(c, kernel.dtype);
  REQUIRE(DeviceCase(*context, *kernel.device, c, first).run(false).has_value());
  for (int n = 1; n < 20; ++n) {
    KernelGradients again(c, kernel.dtype);
    REQUIRE(DeviceCase(*context, *kernel.device, c, again).run(false).has_value());
    CHECK(first.q.bytes() == again.q.bytes());
    CHECK(first.k.bytes() == again.k.bytes());
    CHECK(first.v.bytes() == again.v.bytes());
  }
}

// Its kernels start before the ones before them have ended.
TEST_CASE("gradients on Hopper's tensor cores, captured into a graph") {
  const auto context = context_or_skip();
  if (!context || !is_hopper(*context)) return;
  const Spec spec = Spec::from_string("attention causal { mask = k <= q }").value();
  for (const bool deterministic : {true, false}) {
    CAPTURE(deterministic);
    const CompiledGradients kernel = compile_both({"causal", spec, DType::bf16, 64, 64, deterministic});
    REQUIRE_MESSAGE(kernel.device.has_value(), kernel.error);
    GradientCase c = rounded_case(kernel, 64, 1500);
    kernel.host->backward(c.problem.arguments(), c.given(), c.wanted()).value();
    KernelGradients got(c, kernel.dtype);
    const Result<void> done = DeviceCase(*context, *kernel.device, c, got).run(false, true);
    REQUIRE_MESSAGE(done.has_value(), (done ? "" : done.error().message));
    check_kernel_gradients(*kernel.host, {&got}, c, kernel.dtype);
  }
}

TEST_CASE("what is not finite leaves Hopper's tensor cores for the portable kernels") {
  const auto context = context_or_skip();
  if (!context || !is_hopper(*context)) return;
  const Spec spec = Spec::from_string("attention t { mask = k != 3 and k <= q + 40 }").value();
  const CompiledGradients kernel = compile_both({"poison", spec, DType::bf16, 64, 64});
  REQUIRE_MESSAGE(kernel.device.has_value(), kernel.error);
  Problem problem = sequence_of(64, 300);
  poison(problem, 3);
  std::mt19937 random(5);
  check_gradients(*context, kernel, std::move(problem), random);
}

}  // namespace vicinal::testing
