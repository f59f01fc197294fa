// Backward kernels on the host. VICINAL_EMULATE=all runs the whole gallery and more random specs, which takes
// long.
#include <doctest/doctest.h>

#include <cstdlib>

#include "tests/emulation/emulated_kernels.h"
#include "tests/support/gallery.h"
#include "tests/support/random_problem.h"
#include "tests/support/random_spec.h"

namespace vicinal::testing {
namespace {

bool all_wanted() {
  return std::getenv("VICINAL_EMULATE") != nullptr;
}

void check_random(const EmulatedVariant& variant, unsigned seed, std::int64_t tokens) {
  std::mt19937 random(seed);
  std::optional<Problem> problem = random_problem(variant.kernel(), random, {.tokens = tokens});
  REQUIRE(problem.has_value());
  check_gradients(variant, *std::move(problem), random);
}

}  // namespace

TEST_CASE("backward kernels on the host agree with the interpreter") {
  // Together everything that a spec can say: sinks, outputs, norms, context, several axes, every
  // normalization, reads in scores, scales, sinks and outputs.
  SUBCASE("everything of a sequence") {
    check_random(
        {block_of("input t: float[heads, 9] learnable\ninput s: float[heads] learnable\n"
                  "input r: float[tokens] learnable\nparam a: float = 1 learnable\n"
                  "score = a * 2.5 * tanh(score / 2.5) + t[h, clamp(k - q, -4, 4) + 4] * relu(score) + "
                  "r[q]\n"
                  "scale = 0.5 * s[h]\nsink = s[h] + a\nmask = k <= q or k % 5 == 2\nkey = l2norm\n"
                  "output = out * sigmoid(lse - s[h]) + r[q]"),
         {}},
        1, 70);
  }
  SUBCASE("axes and context") {
    check_random({block_of("axis y { window = 3, dilation = 2 }\naxis x { window = 4, stride = 2, causal }\n"
                           "context\ninput t: float[heads] learnable\nquery = l2norm\n"
                           "score = score + (0.25 * k * t[h] if k.context else t[h] * (q.x - k.x) * score)\n"
                           "mask = (k + q.y) % 3 != 1 if k.context else k.x != 2"),
                  {}},
                 2, 40);
  }
  SUBCASE("sigmoid") {
    check_random({block_of("normalize = sigmoid\ninput w: float[batch, heads, tokens, keys] learnable\n"
                           "score = 0.5 * score * w[b, h, q, k] if q < k + 20 else -inf"),
                  {}},
                 4, 40);
  }
  SUBCASE("bf16") {
    check_random({block_of("input t: float[heads, 9] learnable\n"
                           "score = score + t[h, clamp(k - q, -4, 4) + 4]\nmask = k <= q"),
                  {.dtype = DType::bf16}},
                 5, 40);
  }
}

TEST_CASE("backward kernels on the host: what no query keeps leaves no trace") {
  // Keys are longer than values: poison of the first that runs over would reach what is kept.
  const EmulatedVariant variant(block_of("mask = k != 3 and k <= q + 9"), {.head_dim = 24, .value_dim = 16});
  ProblemShape shape;
  shape.queries = shape.keys = {50};
  shape.head_dim = 24, shape.value_dim = 16, shape.dtype = DType::f32;
  Problem problem = make_problem(shape);
  poison(problem, 3);
  std::mt19937 random(3);
  check_gradients(variant, std::move(problem), random);
}

TEST_CASE("backward kernels on the host: random specs") {
  const unsigned most = all_wanted() ? 60 : 4;
  unsigned compared = 0;
  for (unsigned seed = 1; seed <= most; ++seed) {
    const std::string text = random_spec(seed, true).text;
    CAPTURE(text);
    const EmulatedVariant variant(Spec::from_string(text).value(), {.modes = {Mode::reverse, Mode::forward}});
    std::mt19937 random(seed);
    for (int attempt = 0; attempt < 4; ++attempt) {
      std::optional<Problem> problem = random_problem(variant.kernel(), random, {.tokens = 24});
      // Near a kink fp32 may come to lie on its other side.
      if (!problem || !keeps_from_kinks(variant.kernel(), *problem, 1e-4)) continue;
      const std::mt19937 same = random;
      check_gradients(variant, *problem, random);
      random = same;
      check_tangents(variant, *std::move(problem), random);
      ++compared;
      break;
    }
  }
  MESSAGE(compared, " of ", most, " random specs");
  CHECK(compared * 3 > most);
}

TEST_CASE("backward kernels on the host: the gallery" * doctest::skip(!all_wanted())) {
  unsigned seed = 0;
  for (const GalleryBlock& block : learnable_gallery()) {
    CAPTURE(block.name);
    ++seed;
    const EmulatedVariant variant(block.spec, {.dtype = seed % 2 == 0 ? DType::f32 : DType::bf16,
                                               .modes = {Mode::reverse, Mode::forward}});
    check_random(variant, seed, 40);
    std::mt19937 random(seed);
    std::optional<Problem> problem = random_problem(variant.kernel(), random, {.tokens = 40});
    REQUIRE(problem.has_value());
    check_tangents(variant, *std::move(problem), random, Tiles::listed);
  }
}

}  // namespace vicinal::testing
