// Distances against the neighborhoods themselves, and what follows for masks.
#include <doctest/doctest.h>

#include <fmt/format.h>
#include <vicinal/dtype.h>

#include <limits>

#include "compiler/analysis/pair_facts.h"
#include "compiler/passes/pipeline.h"
#include "templates/vicinal/geometry.cuh"
#include "tests/unit/compiler/compile_text.h"

namespace vicinal {
namespace {

std::string axis_text(const Axis& a) {
  return fmt::format("axis x {{ {}dilation = {}, stride = {}{} }}",
                     a.window == 0 ? "" : fmt::format("window = {}, ", a.window), a.dilation, a.stride,
                     a.causal ? ", causal" : "");
}

emit::Specialized specialized(const std::string& body) {
  const auto compiled = testing::compile_block(body);
  REQUIRE_MESSAGE(compiled.variants.size() == 1, compiled.messages());
  return compiled.variants[0].specialized;
}

bool masked(const std::string& body) {
  return emit::has_mask(specialized(body));
}

}  // namespace

TEST_CASE("pair facts: no neighborhood has a pair outside of its distances") {
  int reached_low = 0, axes = 0;
  for (int window : {0, 1, 2, 3, 4, 5, 8})
    for (int stride = 1; stride <= std::max(1, window); ++stride)
      for (int dilation : {1, 2, 3})
        for (const bool causal : {false, true}) {
          Axis axis{0, window, dilation, stride, causal};
          const std::string text = axis_text(axis);
          CAPTURE(text);
          const ranges::Range d = analysis::neighborhood_distances(specialized(text).grid.module).axis[0];
          int least = 0;
          for (axis.extent = std::max(1, window * dilation); axis.extent < 30; ++axis.extent)
            for (int q = 0; q < axis.extent; ++q)
              for (int k = 0; k < axis.extent; ++k) {
                if (!contains(axis, neighborhood(axis, q), q, k)) continue;
                const std::int64_t above = std::int64_t{k} - q - d.low;
                const bool inside =
                    above >= 0 && k - q <= d.high && above % std::max<std::int64_t>(1, d.step) == 0;
                REQUIRE(inside);
                least = std::min(least, k - q);
              }
          ++axes;
          reached_low += least == d.low;
        }
  // Windows bound tightly; without one nothing bounds a distance.
  CHECK(reached_low > axes / 3);
}

TEST_CASE("pair facts: masks that a neighborhood implies are dropped") {
  CHECK(!masked("axis t { causal }\n mask = k.t <= q.t"));
  CHECK(!masked("axis t { causal }\n mask = k.t < q.t + 1"));
  CHECK(!masked("axis t { causal }\n mask = not (q.t < k.t)"));
  CHECK(!masked("axis t { causal }\n mask = k <= q"));
  CHECK(!masked("axis t { window = 9 }\n mask = abs(q.t - k.t) <= 8"));
  CHECK(!masked("axis t { window = 9 }\n mask = abs(q.t - k.t) // 9 == 0"));
  CHECK(!masked("axis t { window = 9, dilation = 4 }\n mask = (q.t - k.t) % 4 == 0"));
  CHECK(!masked("axis t { window = 9 }\n axis x { causal }\n mask = k.x <= q.x and max(q.t - k.t, 3) < 9"));
  CHECK(!masked("axis t { window = 9 }\n mask = q.t - k.t != 9"));
  // A score of -inf outside of what is in reach.
  CHECK(!masked("axis t { causal }\n score = score if k.t <= q.t else -inf"));
  // One less.
  CHECK(masked("axis t { causal }\n mask = k.t < q.t"));
  CHECK(masked("axis t { window = 9 }\n mask = abs(q.t - k.t) <= 7"));
  CHECK(masked("axis t { window = 9, dilation = 4 }\n mask = (q.t - k.t) % 8 == 0"));
  CHECK(masked("axis t { window = 9 }\n axis x { causal }\n mask = k.t <= q.t"));
  CHECK(masked("axis t { causal }\n axis x { causal }\n mask = k <= q"));
  CHECK(masked("param w: int = 9\n axis t { causal }\n mask = q.t - k.t < w"));
  // Context keys have no distance.
  CHECK(!masked("context\n axis t { causal }\n mask = k.context or k.t <= q.t"));
  CHECK(masked("context\n axis t { causal }\n mask = not k.context and k.t <= q.t"));
}

TEST_CASE("pair facts: sums that may wrap are left alone") {
  // q.t + 2147483647 wraps for every q.t above 0, and then lies below.
  CHECK(masked("axis t { causal }\n mask = k.t <= q.t + 2147483647"));
  CHECK(masked("axis t { causal }\n mask = k.t - 1 <= q.t + 5"));
  CHECK(!masked("axis t { causal }\n mask = k.t - 1 <= q.t + 1"));
  CHECK(!masked("axis t { window = 4 }\n mask = q.t - k.t + 2147483644 > 0"));
  CHECK(masked("axis t { window = 4 }\n mask = q.t - k.t + 2147483645 > 0"));
}

TEST_CASE("pair facts: where there are more queries than keys, `align = end` lets q be negative") {
  CHECK(!masked("mask = q >= 0"));
  CHECK(masked("align = end\n mask = q >= 0"));
  CHECK(masked("align = end\n mask = -q <= 0"));
  CHECK(masked("align = end\n mask = q + 1 > 0"));
  CHECK(masked("align = end\n mask = q - k >= 0 or q >= 0"));
  CHECK(masked("align = end\n score = score if q >= 0 else -inf"));
  // The rows of Q and the keys are counted from 0, and every distance is shorter than an extent.
  CHECK(!masked("align = end\n mask = q.index >= 0 and k >= 0"));
  CHECK(!masked("align = end\n mask = q >= -2147483646 and -q <= 2147483646"));
  CHECK(masked("align = end\n mask = q >= -2147483645"));
  CHECK(!masked("align = end\n mask = q - k <= 2147483646 and k - q <= 2147483646"));
}

TEST_CASE("pair facts: a query's own key") {
  const auto keeps = [](const std::string& body) {
    return passes::keeps_own_key(specialized(body).grid.module);
  };
  CHECK(keeps(""));
  CHECK(keeps("mask = k <= q"));
  CHECK(keeps("mask = 0 <= q - k < 64"));
  CHECK(keeps("input doc: int[tokens]\n mask = doc[q] == doc[k] and k <= q"));
  CHECK(keeps("axis t { window = 5 }\n axis x { window = 5 }\n mask = k.t <= q.t or k.x % 2 == 0"));
  CHECK(keeps("align = end\n mask = 0 <= q - k < 64"));
  CHECK(!keeps("align = end\n mask = q - k > 0 or q >= 0"));
  CHECK(!keeps("mask = k < q"));
  CHECK(!keeps("mask = k % 2 == 0"));
  CHECK(!keeps("input kept: bool[keys]\n mask = kept[k]"));
}

}  // namespace vicinal
