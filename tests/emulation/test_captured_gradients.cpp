// How gradients of captured tensors are added up on the host: each way by which pairs share an element, over
// ragged tiles, several axes, groups of heads and other layouts.
#include <doctest/doctest.h>

#include <algorithm>

#include "compiler/driver/compile.h"
#include "compiler/emit/cuda/site_members.h"
#include "compiler/emit/gradient_sites.h"
#include "runtime/kernel_impl.h"
#include "tests/emulation/emulated_kernels.h"
#include "tests/support/random_problem.h"

namespace vicinal::testing {
namespace {

using analysis::Accumulation;

struct Case {
  std::string statements;
  std::vector<Accumulation> adding;  // of the sites, sorted
  ProblemShape shape = {};
  int in_place = 0;  // tensors without a list
};

ProblemShape shape_of(Index queries, Index keys, std::int64_t heads = 4, std::int64_t kv_heads = 2,
                      Layout layout = Layout::bhnd) {
  ProblemShape s;
  s.heads = heads, s.kv_heads = kv_heads, s.layout = layout;
  s.head_dim = 16, s.value_dim = 24, s.dtype = DType::f32;
  s.queries = std::move(queries), s.keys = std::move(keys);
  return s;
}

std::vector<Accumulation> adding_of(const emit::Specialized& variant) {
  std::vector<Accumulation> result;
  for (const emit::GradientSite& site : emit::gradient_sites(variant.grid, false))
    result.push_back(site.adding.how);
  std::ranges::sort(result);
  return result;
}

void check(const Case& c) {
  CAPTURE(c.statements);
  const Spec spec = block_of(c.statements);
  const emit::Specialized differentiated = emit::specialize(driver::differentiated(spec.impl().variant));
  CHECK(adding_of(differentiated) == c.adding);
  CHECK(std::ranges::count(emit::captured_slots(differentiated), true, &emit::CapturedSlot::in_place) ==
        c.in_place);
  const EmulatedVariant variant(spec, {});
  std::mt19937 random(7);
  std::optional<Problem> problem = random_problem(variant.kernel(), random, {.shape = c.shape});
  REQUIRE(problem.has_value());
  check_gradients(variant, *std::move(problem), random);
}

constexpr Accumulation kHead = Accumulation::block_reduction, kRow = Accumulation::row_reduction,
                       kColumn = Accumulation::column_reduction, kDiagonal = Accumulation::diagonal,
                       kPair = Accumulation::with_the_tile, kOrdered = Accumulation::ordered;

}  // namespace

TEST_CASE("captured gradients on the host: heads, rows and columns of a sequence") {
  check(
      {"input s: float[heads] learnable\ninput g: float[kv_heads] learnable\ninput r: float[tokens] "
       "learnable\n"
       "input i: int[tokens]\ninput d: float[5] learnable\ninput c: float[kv_heads, keys] learnable\n"
       "score = score * s[h] + g[kv_h] * tanh(score) + r[q] * 0.5 + d[clamp(i[q] % 5, 0, 4)] + c[kv_h, k] * "
       "score\n"
       "mask = k <= q + 11",
       {kHead, kHead, kRow, kRow, kColumn},
       shape_of({45}, {70}, 4, 2, Layout::bnhd)});
}

TEST_CASE("captured gradients on the host: distances of a sequence") {
  // The same table several times, straight and through another tensor.
  check(
      {"input t: float[heads, 9] learnable\ninput i: int[25]\nalign = end\n"
       "score = score + t[h, clamp(k - q, -4, 4) + 4] + t[h, min(abs(q - k), 8)] * score + "
       "t[h, clamp(i[clamp(q - k, -12, 12) + 12] % 9, 0, 8)]",
       {kDiagonal, kDiagonal, kDiagonal},
       shape_of({37}, {66}, 2, 1)});
}

TEST_CASE("captured gradients on the host: relative positions along axes") {
  check(
      {"axis t { causal }\naxis y { window = 5, dilation = 2 }\naxis x { window = 3 }\n"
       "input r: float[heads, 5, 9, 3] learnable\ninput c: float[len(y)] learnable\n"
       "score = score + r[h, min(q.t - k.t, 4), clamp((k.y - q.y) // 2, -4, 4) + 4, clamp(k.x - q.x, -1, 1) "
       "+ 1]"
       " + c[k.y] * score",
       {kColumn, kDiagonal},
       shape_of({3, 11, 5}, {3, 11, 5}, 2, 1, Layout::bnhd)});
  check(
      {"axis y\naxis x\ninput r: float[13] learnable\nscore = score + r[clamp(k.x - q.x, -6, 6) + 6] * r[3]",
       {kHead, kDiagonal},
       shape_of({7, 9}, {7, 9}, 2, 2)});
}

TEST_CASE("captured gradients on the host: pairs, and what shares elements in no known way") {
  check(
      {"input w: float[tokens, keys] learnable\ninput n: float[tokens, keys] learnable\n"
       "input u: float[tokens + keys] learnable\n"
       "score = score + w[q, k] * score + n[q + 1, k] + u[q + k]",
       {kPair, kOrdered, kOrdered},
       shape_of({35}, {41}, 4, 2),
       1});
  // Read twice: then another tile's pairs read its elements too.
  check({"input w: float[keys, keys] learnable\nscore = score + w[q, k] * score + w[k, q]",
         {kPair, kPair},
         shape_of({41}, {41}, 2, 1)});
}

TEST_CASE("captured gradients on the host: context keys") {
  check(
      {"context\ninput t: float[heads, 9] learnable\ninput s: float[context] learnable\n"
       "score = score + (t[h, clamp(k - q, -4, 4) + 4] * s[k] if k.context else t[h, clamp(q - k, -4, 4) + "
       "4])",
       {kDiagonal},
       [] {
         ProblemShape s = shape_of({40}, {40}, 2, 1);
         s.context = 35;
         return s;
       }()});
}

TEST_CASE("captured gradients on the host: what rows read") {
  check(
      {"input s: float[heads] learnable\ninput r: float[tokens] learnable\nparam a: float = 1 learnable\n"
       "scale = 0.3 * s[h] * a\nsink = s[h]\noutput = out * r[q] + lse * s[h]",
       {kHead, kHead, kHead, kHead, kRow},
       shape_of({45}, {45})});
}

TEST_CASE("captured gradients on the host: tensors of a dot()") {
  check(
      {"input x: float[batch, heads, tokens, 5] learnable\ninput y: float[batch, kv_heads, keys, 5] "
       "learnable\n"
       "input z: float[heads, 3] learnable\ninput e: float[9, 3]\n"
       "score = score + tanh(dot(x[b, h, q, :], y[b, kv_h, k, :])) + "
       "dot(z[h, :], e[clamp(k - q, -4, 4) + 4, :])",
       {kHead, kRow, kColumn},
       shape_of({35}, {40}, 4, 2, Layout::bnhd)});
  check(
      {"input e: float[9, 3] learnable\ninput z: float[heads, 3] learnable\n"
       "score = score + dot(e[clamp(k - q, -4, 4) + 4, :], e[(q * k) % 9, :])\n"
       "sink = dot(z[h, :], z[0, :])",
       {kHead, kHead, kDiagonal, kOrdered},
       shape_of({35}, {40}, 2, 1)});
}

}  // namespace vicinal::testing
