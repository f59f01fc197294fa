// Backward and forward mode over the tiles that a plan lists.
#include <doctest/doctest.h>

#include <algorithm>

#include "tests/emulation/emulated_kernels.h"

namespace vicinal::testing {
namespace {

Problem problem_of(Index queries, Index keys, std::int64_t context = -1) {
  ProblemShape s;
  s.heads = 4, s.kv_heads = 2, s.head_dim = 16, s.value_dim = 24, s.dtype = DType::f32;
  s.queries = std::move(queries), s.keys = std::move(keys), s.context = context;
  return make_problem(s);
}

void check(const std::string& statements, const Problem& problem) {
  CAPTURE(statements);
  const EmulatedVariant variant(block_of(statements), {.modes = {Mode::reverse, Mode::forward}});
  CHECK(variant.has_lists(problem));
  std::mt19937 random(1);
  check_gradients(variant, problem, random, Tiles::listed);
  check_tangents(variant, problem, random, Tiles::listed);
}

bool is_zero(const HostTensor& t) {
  bool all = true;
  t.each([&](const Index& i) { all = all && t.at(i) == 0; });
  return all;
}

}  // namespace

TEST_CASE("plans on the host: empty, full and partial tiles, by head") {
  check("param a: float = 1 learnable\nscore = a * score\nmask = q - k >= 0 and q - k < 40 + 30 * h",
        problem_of({150}, {130}));
}

TEST_CASE("plans on the host: axes and context") {
  check(
      "axis y { window = 5 }\naxis x { window = 5, dilation = 2 }\ncontext\n"
      "mask = k < 33 if k.context else q.y >= k.y and (k.x + q.y) % 7 != 3",
      problem_of({9, 15}, {9, 15}, 40));
}

TEST_CASE("plans on the host: tiles that are not listed are not visited") {
  const EmulatedVariant variant(block_of("param a: float = 1 learnable\nscore = a * score\nmask = k <= q"),
                                {});
  Problem problem = problem_of({50}, {50});
  std::mt19937 random(1);
  GradientCase c = gradient_case(variant.kernel(), std::move(problem), random);
  round_given(c, DType::f32);
  const auto all_zero = [](const KernelGradients& g) {
    return is_zero(g.q) && is_zero(g.k) && is_zero(g.v) && is_zero(g.params.at("a"));
  };
  const auto any_zero = [](const KernelGradients& g) {
    return is_zero(g.q) || is_zero(g.k) || is_zero(g.v) || is_zero(g.params.at("a"));
  };
  CHECK(all_zero(variant.gradients(c, {Tiles::none})));
  CHECK(!any_zero(variant.gradients(c, {Tiles::listed})));
}

}  // namespace vicinal::testing
