// Shapes of tiles are searched once for the same extents, and again for others, where none was found too.
#include <doctest/doctest.h>

#include "runtime/kernel_plan.h"

namespace vicinal::testing {
namespace {

runtime::Problem problem_of(std::int64_t extent, std::int64_t window) {
  runtime::Problem p;
  p.batch = p.heads = p.kv_heads = 1;
  p.head_dim = p.value_dim = 64;
  p.tokens = p.keys = extent;
  p.q_axis = p.k_axis = {{extent, extent, 0}};
  p.axes = {{window, 1, 1, false}};
  return p;
}

}  // namespace

TEST_CASE("a shape is searched once for the same extents") {
  runtime::ShapeCache cache;
  const ir::Module module;
  int searches = 0;
  const auto shape_of = [&](std::int64_t extent, std::int64_t window, bool exists) {
    return cache.find(module, problem_of(extent, window), [&]() -> std::optional<plan::TileShape> {
      ++searches;
      if (!exists) return std::nullopt;
      return plan::TileShape{{static_cast<int>(extent)}, {static_cast<int>(window)}};
    });
  };
  for (int n = 0; n < 3; ++n) {
    CHECK(shape_of(16, 7, true)->k == std::vector<int>{7});
    CHECK(shape_of(16, 9, true)->k == std::vector<int>{9});
    CHECK(shape_of(24, 7, true)->q == std::vector<int>{24});
    CHECK(!shape_of(32, 7, false));
  }
  CHECK(searches == 4);

  // However many there were, an answer is that of its own extents.
  for (std::int64_t extent = 1; extent <= 500; ++extent)
    CHECK(shape_of(extent, 1, true)->q == std::vector<int>{static_cast<int>(extent)});
  CHECK(searches == 504);
}

}  // namespace vicinal::testing
