// What a tile shape costs: how many scores are computed, how many of them count, how many need a mask.
#pragma once

#include "runtime/plan/tile_plan.h"

namespace vicinal::plan {

// Of one batch and head where the neighborhoods alone decide, summed over all of them where a mask has its
// say.
struct TileCost {
  std::int64_t rows = 0;     // tiles of queries
  std::int64_t visited = 0;  // tiles of keys, over all rows
  std::int64_t full = 0;     // of these, without a mask
  double computed = 0;       // scores of the visited tiles, tiles counted whole
  double useful = 0;         // pairs that are kept
  double all = 0;            // queries x keys: what dense attention computes
  std::int64_t tile_queries = 0, tile_keys = 0;

  double masked() const {
    return static_cast<double>(visited - full) * static_cast<double>(tile_queries * tile_keys);
  }
  double waste() const { return useful == 0 ? 0 : computed / useful; }
  double full_share() const {
    return visited == 0 ? 0 : static_cast<double>(full) / static_cast<double>(visited);
  }
  // The most that skipping can win over dense attention.
  double speedup_bound() const { return computed == 0 ? 0 : all / computed; }
  // Forward: two products a score.
  double flops(std::int64_t head_dim, std::int64_t value_dim) const {
    return 2 * computed * static_cast<double>(head_dim + value_dim);
  }
  // Read and written by a kernel that keeps its tile of queries: Q and O once, K and V tile by tile.
  double bytes(std::int64_t head_dim, std::int64_t value_dim, std::int64_t element) const {
    const double keys = static_cast<double>(visited) * static_cast<double>(tile_keys);
    const double queries = static_cast<double>(rows) * static_cast<double>(tile_queries);
    return (keys + queries) * static_cast<double>((head_dim + value_dim) * element);
  }
};

// Where tiles of keys start: at the window's union, as ours do, or at multiples of the tile, as a kernel
// whose tokens were permuted into tiles must.
enum class Anchor { window, grid };

// Of the neighborhoods alone: sums along each axis, multiplied. Context keys are left out.
TileCost neighborhood_cost(const TileGrid& grid, Anchor anchor = Anchor::window);

// Of a plan, over the problem's batches and heads that differ; useful pairs are counted exactly, by halving
// boxes.
TileCost plan_cost(const TilePlan& plan, const Masks& masks, unsigned threads);

// The shapes with so many queries and keys that compute least, best first. A masked score counts as
// `1 + mask_weight` scores.
struct ShapeChoice {
  TileShape shape;
  TileCost cost;
  double weight;  // what it was ranked by
};
std::vector<ShapeChoice> search_shapes(const runtime::Problem& problem, std::int64_t queries,
                                       std::int64_t keys, double mask_weight, std::size_t most);

}  // namespace vicinal::plan
