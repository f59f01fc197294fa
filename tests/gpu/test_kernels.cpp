// The kernels against plain loops in double precision, through hand-written variants.
#include <limits>
#include <optional>

#include "tests/support/kernel_runner.h"

namespace vicinal::testing {
namespace {

constexpr DType kDTypes[] = {DType::f32, DType::f16, DType::bf16};

std::optional<cuda::Context> context_or_skip() {
  const auto api = cuda::driver();
  if (!api) {
    MESSAGE("skipped: ", api.error().message);
    return std::nullopt;
  }
  const auto context = cuda::Context::current_or_primary(**api);
  if (!context) {
    MESSAGE("skipped: ", context.error().message);
    return std::nullopt;
  }
  return *context;
}

KernelProblem sequence(const ExampleKernel& kernel, int queries, int keys) {
  KernelProblem p;
  p.kernel = kernel;
  p.q_axis = {{queries}};
  p.k_axis = {{keys}};
  return p;
}

KernelProblem grid(const ExampleKernel& kernel, int t, int y, int x, int context) {
  KernelProblem p;
  p.kernel = kernel;
  p.q_axis = p.k_axis = {{t}, {y}, {x}};
  p.context = context;
  return p;
}

// A small problem of the rank that an example has; windows of 9 and of 3, 4, 4 fit.
KernelProblem small(const ExampleKernel& kernel, int tokens = 77) {
  return kernel.example == Example::video ? grid(kernel, 4, 5, 7, 11) : sequence(kernel, tokens, tokens);
}

}  // namespace

TEST_CASE("kernels: every example and dtype, portable and reference") {
  const auto context = context_or_skip();
  if (!context) return;
  for (const Example example : kExamples) {
    for (const DType dtype : kDTypes) {
      for (const bool reference : {false, true}) {
        check_on_device(*context, small({.example = example, .dtype = dtype, .reference = reference}));
      }
    }
  }
}

TEST_CASE("kernels: lengths around the edges of a tile, and none at all") {
  const auto context = context_or_skip();
  if (!context) return;
  for (const Example example : {Example::plain, Example::causal_alibi, Example::everything}) {
    for (const int queries : {0, 1, 63, 64, 65, 130}) {
      for (const int keys : {0, 1, 31, 64, 65, 200}) {
        check_on_device(*context, sequence({.example = example, .dtype = DType::bf16}, queries, keys));
      }
    }
  }
  for (const int tokens : {9, 63, 64, 65, 257}) {
    check_on_device(*context, sequence({.example = Example::sigmoid, .dtype = DType::f32}, tokens, tokens));
  }
}

TEST_CASE("kernels: head dims and value dims") {
  const auto context = context_or_skip();
  if (!context) return;
  const int dims[][2] = {{8, 8},    {16, 24},   {40, 40},   {72, 40},   {80, 80},
                         {96, 128}, {128, 128}, {192, 128}, {256, 256}, {64, 248}};
  for (const auto& [head, value] : dims) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const ExampleKernel kernel{
          .example = Example::causal_alibi, .dtype = dtype, .head_dim = head, .value_dim = value};
      check_on_device(*context, sequence(kernel, 70, 90));
    }
  }
}

TEST_CASE("kernels: tiles do not change the result") {
  const auto context = context_or_skip();
  if (!context) return;
  for (const int tile_q : {16, 32, 64}) {
    for (const int tile_k : {16, 32, 64}) {
      const ExampleKernel kernel{
          .example = Example::video, .dtype = DType::f16, .tile_q = tile_q, .tile_k = tile_k};
      check_on_device(*context, grid(kernel, 5, 7, 9, 37));
    }
  }
}

TEST_CASE("kernels: strides that rule out wide loads, and shared key heads") {
  const auto context = context_or_skip();
  if (!context) return;
  for (const Example example : {Example::causal_alibi, Example::video}) {
    for (const auto& [padding, step] : {std::pair{3, 1}, {0, 2}, {8, 1}}) {
      KernelProblem p = small({.example = example, .dtype = DType::bf16});
      p.padding = padding;
      p.step = step;
      check_on_device(*context, p);
    }
  }
  for (const auto& [heads, kv_heads] : {std::pair{6, 1}, {6, 3}, {6, 6}}) {
    KernelProblem p = small({.example = Example::causal_alibi, .dtype = DType::f32});
    p.heads = heads;
    p.kv_heads = kv_heads;
    check_on_device(*context, p);
  }
}

TEST_CASE("kernels: context keys beside a grid") {
  const auto context = context_or_skip();
  if (!context) return;
  for (const int tokens : {0, 1, 64, 100}) {
    for (const bool reference : {false, true}) {
      check_on_device(*context, grid({.example = Example::video, .reference = reference}, 6, 8, 12, tokens));
    }
  }
}

TEST_CASE("kernels: a shard speaks in global coordinates") {
  const auto context = context_or_skip();
  if (!context) return;
  for (const bool reference : {false, true}) {
    KernelProblem p =
        grid({.example = Example::video, .dtype = DType::f32, .reference = reference}, 8, 9, 10, 5);
    p.q_axis = {{8, 3, 4}, {9, 9, 0}, {10, 5, 2}};
    p.k_axis = {{8, 6, 1}, {9, 9, 0}, {10, 9, 1}};
    check_on_device(*context, p);
    p.k_axis[0] = {8, 2, 0};  // no key of the shard is in reach
    check_on_device(*context, p);

    KernelProblem s = sequence({.example = Example::causal_alibi, .reference = reference}, 200, 300);
    s.q_axis[0] = {200, 50, 120};
    s.k_axis[0] = {300, 70, 130};
    check_on_device(*context, s);
  }
}

TEST_CASE("kernels: NaN and Inf reach the queries that keep them and no others") {
  const auto context = context_or_skip();
  if (!context) return;
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(),
                  kInfinity = std::numeric_limits<float>::infinity();
  for (const Example example : kExamples) {
    for (const bool reference : {false, true}) {
      const KernelProblem p = small({.example = example, .dtype = DType::bf16, .reference = reference}, 150);
      KernelData keys = make_data(p);
      keys.k.at(0, 1, 40, 3) = kNaN;
      check_on_device(*context, p, keys);
      KernelData values = make_data(p);
      values.v.at(1, 0, 33, 5) = kNaN;
      values.v.at(0, 1, 70, 0) = kInfinity;
      values.v.at(0, 0, 71, 63) = -kInfinity;
      check_on_device(*context, p, values);
      KernelData queries = make_data(p);
      queries.q.at(1, 2, 5, 0) = kNaN;
      check_on_device(*context, p, queries);
    }
  }
}

TEST_CASE("kernels: a launch can be captured into a graph and replayed") {
  const auto context = context_or_skip();
  if (!context) return;
  KernelProblem p = small({.example = Example::causal_alibi, .dtype = DType::bf16}, 300);
  p.graph = true;
  check_on_device(*context, p);
}

TEST_CASE("kernels: any number of blocks gives the same result") {
  const auto context = context_or_skip();
  if (!context) return;
  for (const unsigned blocks : {1u, 5u, 4096u}) {
    KernelProblem p = small({.example = Example::everything, .dtype = DType::f32}, 130);
    p.blocks = blocks;
    check_on_device(*context, p);
  }
}

}  // namespace vicinal::testing
