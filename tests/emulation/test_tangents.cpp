// Forward mode on the host.
#include <doctest/doctest.h>

#include "tests/emulation/emulated_kernels.h"
#include "tests/support/random_problem.h"

namespace vicinal::testing {
namespace {

void check(const std::string& statements, unsigned seed, DType dtype = DType::f32, std::int64_t tokens = 40) {
  CAPTURE(statements);
  const EmulatedVariant variant(block_of(statements), {.dtype = dtype, .modes = {Mode::forward}});
  std::mt19937 random(seed);
  std::optional<Problem> problem = random_problem(variant.kernel(), random, {.tokens = tokens});
  REQUIRE(problem.has_value());
  check_tangents(variant, *std::move(problem), random);
}

}  // namespace

TEST_CASE("forward mode on the host: everything of a sequence") {
  check(
      "input t: float[heads, 9] learnable\ninput s: float[heads] learnable\n"
      "input r: float[tokens] learnable\nparam a: float = 1 learnable\n"
      "score = a * 2.5 * tanh(score / 2.5) + t[h, clamp(k - q, -4, 4) + 4] * relu(score) + r[q]\n"
      "scale = 0.5 * s[h]\nsink = s[h] + a\nmask = k <= q or k % 5 == 2\nkey = l2norm\n"
      "output = out * sigmoid(lse - s[h]) + r[q]",
      1, DType::f32, 70);
}

TEST_CASE("forward mode on the host: axes, context, norms") {
  check(
      "axis y { window = 3, dilation = 2 }\naxis x { window = 4, stride = 2, causal }\n"
      "context\ninput t: float[heads] learnable\nquery = l2norm\n"
      "score = score + (0.25 * k * t[h] if k.context else t[h] * (q.x - k.x) * score)\n"
      "mask = (k + q.y) % 3 != 1 if k.context else k.x != 2",
      2);
}

TEST_CASE("forward mode on the host: sigmoid, and tensors of a dot()") {
  check(
      "normalize = sigmoid\ninput x: float[heads, tokens, 5] learnable\ninput y: float[keys, 5] learnable\n"
      "score = 0.5 * score + dot(x[h, q, :], y[k, :]) if q < k + 20 else -inf",
      3);
}

TEST_CASE("forward mode on the host: bf16, plain") {
  check("mask = k <= q", 4, DType::bf16);
}

TEST_CASE("forward mode on the host: what no query keeps leaves no trace") {
  const EmulatedVariant variant(block_of("mask = k != 3 and q != 5"),
                                {.head_dim = 24, .value_dim = 16, .modes = {Mode::forward}});
  ProblemShape shape;
  shape.queries = shape.keys = {40};
  shape.head_dim = 24, shape.value_dim = 16, shape.dtype = DType::f32;
  Problem problem = make_problem(shape);
  poison(problem, 3);
  std::mt19937 random(3);
  check_tangents(variant, std::move(problem), random);
}

}  // namespace vicinal::testing
