// What captured inputs hold over ranges of indices, against a look at every element.
#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "runtime/host/elements.h"
#include "runtime/plan/captured_ranges.h"

namespace vicinal {
namespace {

using ranges::Range;

// One input with elements of its own, some of its strides longer than they must be.
struct Captured {
  ir::Module module;
  runtime::Problem problem;
  std::vector<std::int32_t> integers;
  std::vector<float> reals;

  Captured(const std::vector<std::int64_t>& extents, bool real, std::mt19937& random) {
    module.inputs.resize(1);
    problem.inputs.resize(1);
    runtime::CapturedInput& x = problem.inputs[0];
    x.extents = extents;
    std::int64_t size = 1;
    for (std::size_t i = extents.size(); i-- > 0; size *= extents[i]) {
      size *= 1 + static_cast<std::int64_t>(random() % 2);
      x.strides.insert(x.strides.begin(), size);
    }
    for (std::int64_t i = 0; i < size; ++i) {
      integers.push_back(static_cast<std::int32_t>(random() % 100000) - 50000);
      reals.push_back(random() % 64 == 0 ? std::numeric_limits<float>::quiet_NaN()
                                         : static_cast<float>(integers.back()) / 8);
    }
    x.dtype = real ? DType::f32 : DType::i32;
    x.data = real ? static_cast<const void*>(reals.data()) : integers.data();
  }
};

struct Seen {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  bool nan = false;
};

// Clamped, as a read is.
Seen looked_at(const runtime::CapturedInput& x, const std::vector<Range>& indices) {
  std::vector<std::int64_t> offsets = {0};
  for (std::size_t i = 0; i < indices.size(); ++i) {
    std::vector<std::int64_t> next;
    for (std::int64_t at = indices[i].low; at <= indices[i].high; at += std::max<u32>(indices[i].step, 1))
      for (const std::int64_t offset : offsets)
        next.push_back(offset + std::clamp<std::int64_t>(at, 0, x.extents[i] - 1) * x.strides[i]);
    offsets = std::move(next);
  }
  Seen seen;
  for (const std::int64_t offset : offsets) {
    const double value = host::load_element(x.data, x.dtype, offset);
    seen.nan = seen.nan || value != value;
    if (value != value) continue;
    seen.low = std::min(seen.low, value);
    seen.high = std::max(seen.high, value);
  }
  return seen;
}

Range random_range(std::int64_t extent, bool point, std::mt19937& random) {
  const auto low = static_cast<int>(random() % (extent + 4)) - 2;
  if (point) return ranges::point(low);
  const auto step = static_cast<u32>(random() % 3 == 0 ? 1 + random() % 7 : 1);
  const auto count = 1 + static_cast<int>(random() % (2 * extent));
  return ranges::make_range(low, low + static_cast<std::int64_t>(count) * step, step);
}

}  // namespace

TEST_CASE("captured ranges: hold every element, and of neighbours no more") {
  std::mt19937 random(3);
  for (const std::vector<std::int64_t>& extents :
       std::vector<std::vector<std::int64_t>>{{1}, {63}, {64}, {65}, {1000}, {3, 300}, {200, 5}, {2, 3, 150}})
    for (const bool real : {false, true}) {
      const Captured input(extents, real, random);
      const std::vector<analysis::RangedDimensions> ranged = {
          {.spread_out = static_cast<std::uint8_t>((1u << extents.size()) - 1)}};
      const plan::CapturedRanges captured(input.module, input.problem, ranged, 1);
      for (int n = 0; n < 2000; ++n) {
        std::vector<Range> indices;
        bool neighbours = true;
        for (std::size_t i = 0; i < extents.size(); ++i) {
          const bool last = i + 1 == extents.size();
          indices.push_back(random_range(extents[i], !last || random() % 8 == 0, random));
          neighbours = neighbours && indices.back().step <= 1;
        }
        const Seen wanted = looked_at(input.problem.inputs[0], indices);
        if (real) {
          const ranges::RealRange got = captured.reals(0, indices);
          const bool all_nan = wanted.low > wanted.high;
          REQUIRE((got.nan || !wanted.nan));
          if (all_nan) continue;
          REQUIRE((got.low <= wanted.low && got.high >= wanted.high));
          if (neighbours)
            REQUIRE((got.low == wanted.low && got.high == wanted.high && got.nan == wanted.nan));
        } else {
          const Range got = captured.integers(0, indices);
          REQUIRE((got.low <= wanted.low && got.high >= wanted.high));
          if (neighbours) REQUIRE((got.low == wanted.low && got.high == wanted.high));
        }
      }
    }
}

}  // namespace vicinal
