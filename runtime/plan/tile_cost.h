// What a tile shape costs: how many scores are computed, how many of them count, how many need a mask. Of
// plans with rows of queries and of transposed ones alike; what speaks of the forward pass says so.
#pragma once

#include <algorithm>
#include <functional>
#include <optional>

#include "runtime/plan/tile_plan.h"

namespace vicinal::plan {

// Summed over the slices of a plan; of one batch and head where the neighborhoods alone decide.
struct TileCost {
  std::int64_t rows = 0;     // that have a token
  std::int64_t visited = 0;  // tiles, over all rows
  std::int64_t full = 0;     // of these, without a mask
  std::int64_t dense = 0;    // tiles of dense attention, laid on a grid
  std::int64_t tile_queries = 0, tile_keys = 0;
  std::optional<double> useful = 0;  // pairs that are kept; none where counting them would take too long

  std::int64_t partial() const { return visited - full; }
  std::int64_t skipped() const { return std::max<std::int64_t>(0, dense - visited); }
  double full_share() const {
    return visited == 0 ? 0 : static_cast<double>(full) / static_cast<double>(visited);
  }
  // Scores, tiles counted whole.
  double scores(std::int64_t tiles) const {
    return static_cast<double>(tiles) * static_cast<double>(tile_queries) * static_cast<double>(tile_keys);
  }
  double computed() const { return scores(visited); }
  double masked() const { return scores(partial()); }
  // How many scores are computed for one that is kept.
  std::optional<double> waste() const {
    return useful && *useful != 0 ? std::optional(computed() / *useful) : std::nullopt;
  }
  // The most that skipping can win over dense attention in such tiles.
  std::optional<double> speedup_bound() const {
    return visited == 0 ? std::nullopt
                        : std::optional(static_cast<double>(dense) / static_cast<double>(visited));
  }
  // Read and written by a forward kernel, which keeps its tile of queries: Q and O once, K and V tile by
  // tile.
  double bytes(std::int64_t head_dim, std::int64_t value_dim, std::int64_t element) const {
    const double tokens = static_cast<double>(visited) * static_cast<double>(tile_keys) +
                          static_cast<double>(rows) * static_cast<double>(tile_queries);
    return tokens * static_cast<double>((head_dim + value_dim) * element);
  }
};

// Of the forward pass: two products a score.
inline double forward_flops(double scores, std::int64_t head_dim, std::int64_t value_dim) {
  return 2 * scores * static_cast<double>(head_dim + value_dim);
}

// Where visited tiles start: at the window's union, as ours do, or at multiples of the tile, as a kernel
// whose tokens were permuted into tiles must.
enum class Anchor { window, grid };

// Of the neighborhoods alone, context keys included: sums along each axis, multiplied.
TileCost neighborhood_cost(const TileGrid& grid, Anchor anchor = Anchor::window);

// Whether every tile that a row visits along the axis is full, so that nothing is masked along it: as where
// the stride is the window and the tiles divide both.
bool block_sparse(const TileGrid& grid, std::size_t axis);

struct CostOptions {
  unsigned threads = 1;
  // Kept pairs of partial tiles are counted by halving what is mixed; a list that takes more evaluations than
  // this is not counted, on any machine.
  std::int64_t most_looks = std::int64_t{1} << 22;
};
TileCost plan_cost(const TilePlan& plan, const Masks& masks, const CostOptions& options);

// What asking a variant about every pair of a tile adds to the tile's products, in our kernels.
inline constexpr double kMaskWeight = 0.2;

// What a kernel says of shapes.
struct ShapeRules {
  double mask_weight = kMaskWeight;
  int free_extent = 0;  // tiles of keys with this extent along the last axis are masked along it at no cost
  // What a score costs in such tiles, in scores; nothing where the kernel cannot have them. None: 1.
  std::function<std::optional<double>(const TileShape&)> factor;
  // The parts of a tile of queries that skip tiles of keys on their own; none: all of it.
  std::function<std::vector<int>(const TileShape&)> part;
  double tile_weight = 0;  // what bringing a tile of keys costs, in queries that each would score it
};

// The shapes with so many queries and keys that compute least where tiles of `owner` are the rows, best
// first. A masked score counts as `1 + mask_weight` scores.
struct ShapeChoice {
  TileShape shape;
  TileCost cost;
  double weight;  // what it was ranked by
};
std::vector<ShapeChoice> search_shapes(const runtime::Problem& problem, std::int64_t queries,
                                       std::int64_t keys, std::size_t most, const ShapeRules& rules = {},
                                       Side owner = Side::queries);

}  // namespace vicinal::plan
