// The cost model, against counts made by walking every tile and against figures that were known before it.
#include <doctest/doctest.h>

#include <chrono>

#include "runtime/plan/tile_cost.h"

namespace vicinal {
namespace {

using plan::Anchor;
using plan::TileCost;
using plan::TileGrid;

runtime::Problem problem(const std::vector<std::int64_t>& extents, const std::vector<std::int64_t>& windows,
                         std::int64_t stride = 1, std::int64_t dilation = 1, bool causal = false) {
  runtime::Problem p;
  p.batch = p.heads = p.kv_heads = 1;
  p.head_dim = p.value_dim = 128;
  p.tokens = 1;
  for (std::size_t i = 0; i < extents.size(); ++i) {
    p.q_axis.push_back({extents[i], extents[i], 0});
    p.axes.push_back({windows[i], dilation, stride, causal});
    p.tokens *= extents[i];
  }
  p.keys = p.tokens;
  p.k_axis = p.q_axis;
  return p;
}

// Walks every tile of every row.
TileCost walked(const TileGrid& grid) {
  TileCost cost;
  plan::Row row;
  for (std::int64_t n = 0; n < grid.rows(); ++n) {
    grid.row(n, row);
    cost.rows += row.tiles > 0;
    for (std::int64_t t = 0; t < row.tiles; ++t) {
      cost.visited += grid.has_tokens(row, t);
      cost.full += grid.full(row, t);
    }
  }
  return cost;
}

}  // namespace

TEST_CASE("tile cost: sums along the axes are the sums over all tiles") {
  for (const bool causal : {false, true})
    for (const std::int64_t dilation : {1, 2})
      for (const std::int64_t stride : {1, 3}) {
        runtime::Problem p = problem({13, 11, 17}, {4, 3, 8}, stride, dilation, causal);
        p.context = 29;
        std::optional<double> useful;
        for (const plan::Side owner : {plan::Side::queries, plan::Side::keys}) {
          const TileGrid grid(p, {{2, 3, 4}, {3, 2, 4}}, owner);
          const TileCost counted = walked(grid), summed = plan::neighborhood_cost(grid);
          CHECK(summed.rows == counted.rows);
          CHECK(summed.visited == counted.visited);
          CHECK(summed.full == counted.full);
          CHECK(*summed.useful == useful.value_or(*summed.useful));
          useful = summed.useful;
        }
        if (!causal) CHECK(*useful == doctest::Approx(13.0 * 11 * 17 * (4 * 3 * 8 + 29)));
      }
}

// Neighborhood attention's kernels (NATTEN 0.21) permute tokens into tiles, so that theirs lie on a grid.
TEST_CASE("tile cost: known figures") {
  const auto grid_cost = [](const runtime::Problem& p, const plan::TileShape& shape) {
    return plan::neighborhood_cost(TileGrid(p, shape), Anchor::grid);
  };
  const TileCost video = grid_cost(problem({30, 48, 80}, {18, 24, 24}), {{2, 8, 8}, {2, 8, 8}});
  CHECK(*video.waste() == doctest::Approx(2.04).epsilon(0.005));
  CHECK(video.full_share() == doctest::Approx(0.17).epsilon(0.03));
  const TileCost image = grid_cost(problem({256, 256}, {80, 80}), {{16, 8}, {16, 8}});
  CHECK(*image.waste() == doctest::Approx(1.36).epsilon(0.005));
  CHECK(image.full_share() == doctest::Approx(0.50).epsilon(0.02));
  const TileCost sequence = grid_cost(problem({32768}, {2048}), {{128}, {128}});
  CHECK(*sequence.waste() == doctest::Approx(1.06).epsilon(0.005));
  CHECK(sequence.full_share() == doctest::Approx(0.89).epsilon(0.005));
}

TEST_CASE("tile cost: axes without a masked tile") {
  const auto sparse = [](std::int64_t window, std::int64_t stride, std::int64_t dilation, int q, int k) {
    runtime::Problem p = problem({64}, {window});
    p.axes[0].stride = stride;
    p.axes[0].dilation = dilation;
    return plan::block_sparse(TileGrid(p, {{q}, {k}}), 0);
  };
  CHECK(sparse(8, 8, 1, 8, 8));
  CHECK(sparse(8, 8, 1, 4, 2));
  CHECK(sparse(16, 8, 1, 8, 4));
  CHECK(sparse(8, 8, 2, 8, 8));
  CHECK(!sparse(8, 8, 1, 16, 8));
  CHECK(!sparse(8, 8, 1, 8, 3));
  CHECK(!sparse(8, 4, 1, 8, 8));
  CHECK(sparse(64, 1, 1, 8, 8));
}

TEST_CASE("tile cost: the search finds the cheapest shape") {
  const runtime::Problem p = problem({30, 48, 80}, {18, 24, 24});
  const auto start = std::chrono::steady_clock::now();
  const auto choices = plan::search_shapes(p, 128, 128, 5);
  const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
  REQUIRE(choices.size() == 5);
  MESSAGE("30x48x80, window 18x24x24: ", plan::print(choices[0].shape), " computes ",
          *choices[0].cost.waste(), " times the useful scores, ", 100 * choices[0].cost.full_share(),
          "% of its tiles without a mask; found in ", time.count(), " ms");
  for (std::size_t i = 1; i < choices.size(); ++i) CHECK(choices[i - 1].weight <= choices[i].weight);
  const TileCost aligned = plan::neighborhood_cost(TileGrid(p, {{2, 8, 8}, {2, 8, 8}}), Anchor::grid);
  CHECK(*choices[0].cost.waste() < *aligned.waste());
}

TEST_CASE("tile cost: the search weighs the rows it is asked for") {
  const runtime::Problem p = problem({8, 32, 32}, {3, 3, 3});
  for (const plan::Side owner : {plan::Side::queries, plan::Side::keys})
    for (const plan::ShapeChoice& choice : plan::search_shapes(p, 64, 64, 5, {}, owner)) {
      const TileCost cost = plan::neighborhood_cost(TileGrid(p, choice.shape, owner));
      CHECK(choice.cost.visited == cost.visited);
      CHECK(choice.cost.full == cost.full);
      CHECK(choice.weight == doctest::Approx(cost.computed() + 0.2 * cost.masked()));
    }
}

}  // namespace vicinal
