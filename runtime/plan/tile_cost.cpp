#include "runtime/plan/tile_cost.h"

#include <algorithm>

#include "runtime/plan/kept_pairs.h"

namespace vicinal::plan {
namespace {

std::int64_t tiles(std::int64_t tokens, std::int64_t tile) {
  return (tokens + tile - 1) / tile;
}

std::int64_t dense_tiles(const runtime::Problem& p, const TileCost& cost) {
  return tiles(p.local_queries(), cost.tile_queries) *
         (tiles(p.local_keys(), cost.tile_keys) + tiles(p.context, cost.tile_keys));
}

// Along one axis, summed over its rows.
struct AxisCost {
  std::int64_t visited = 0, full = 0;
};

// By parts of so many tokens of a row, each of which visits what it needs of the row's tiles.
AxisCost axis_cost(const TileGrid& grid, std::size_t i, Anchor anchor, int part) {
  AxisCost cost;
  const int tile = grid.shape().of(grid.visited())[i], dilation = grid.axis(i).dilation;
  for (std::int64_t n = 0; n < grid.rows_along(grid.owner(), i); ++n) {
    const Stretch tokens = grid.tokens(grid.owner(), i, n);
    if (tokens.count == 0) continue;
    int start = grid.reach(i, tokens).begin;
    if (anchor == Anchor::grid) start -= start % tile;
    for (int done = 0; done < tokens.count; done += part) {
      const Span reach = grid.reach(i, {tokens.first + done * dilation, smaller(part, tokens.count - done)});
      const int first = (reach.begin - start) / tile, end = tile_count(reach.end - start, tile);
      cost.visited += larger(0, end - first);
      // The full ones are neighbours: from the first that starts where all tokens see to the last that ends
      // there.
      const int before = larger(first, tile_count(reach.sure_begin - start, tile)),
                until = larger(0, reach.sure_end - start) / tile;
      cost.full += larger(0, smaller(end, until) - before);
    }
  }
  return cost;
}
AxisCost axis_cost(const TileGrid& grid, std::size_t i, Anchor anchor) {
  return axis_cost(grid, i, anchor, grid.shape().of(grid.owner())[i]);
}

// Pairs that see each other along one axis.
std::int64_t axis_pairs(const TileGrid& grid, std::size_t i) {
  std::int64_t pairs = 0;
  const runtime::Problem& p = grid.problem();
  const runtime::GridAxis& local = (grid.owner() == Side::queries ? p.q_axis : p.k_axis)[i];
  for (std::int64_t x = local.origin; x < local.origin + local.local; ++x) {
    const Span reach = grid.reach(i, {static_cast<int>(x), 1});
    pairs += reach.end - reach.begin;
  }
  return pairs;
}

double kept_pairs(const TileGrid& grid) {
  double pairs = 1;
  for (std::size_t i = 0; i < grid.rank(); ++i) pairs *= static_cast<double>(axis_pairs(grid, i));
  return pairs;
}

// Tiles of the grid, cut as rows: those that have a token, and those that are whole.
struct Cut {
  std::int64_t filled = 1, whole = 1;
};

Cut cut(const TileGrid& grid, Side side) {
  Cut all;
  for (std::size_t i = 0; i < grid.rank(); ++i) {
    std::int64_t filled = 0, whole = 0;
    for (std::int64_t n = 0; n < grid.rows_along(side, i); ++n) {
      const int count = grid.tokens(side, i, n).count;
      filled += count > 0;
      whole += count == grid.shape().of(side)[i];
    }
    all.filled *= filled;
    all.whole *= whole;
  }
  return all;
}

std::int64_t filled_rows(const TileGrid& grid) {
  return cut(grid, grid.owner()).filled + grid.rows() - grid.grid_rows();
}

TileCost product(const TileGrid& grid, const std::vector<AxisCost>& axes, double useful) {
  const TileShape& shape = grid.shape();
  const runtime::Problem& p = grid.problem();
  TileCost cost;
  cost.tile_queries = shape.queries();
  cost.tile_keys = shape.keys();
  cost.rows = filled_rows(grid);
  cost.visited = cost.full = 1;
  for (const AxisCost& a : axes) {
    cost.visited *= a.visited;
    cost.full *= a.full;
  }
  // Every tile of queries meets every tile of the context.
  if (p.context > 0) {
    const Cut queries = cut(grid, Side::queries);
    const std::int64_t keys = tiles(p.context, cost.tile_keys);
    cost.visited += queries.filled * keys;
    cost.full +=
        grid.owner() == Side::queries ? queries.filled * (p.context / cost.tile_keys) : queries.whole * keys;
  }
  cost.useful = useful + static_cast<double>(p.local_queries()) * static_cast<double>(p.context);
  cost.dense = dense_tiles(p, cost);
  return cost;
}

// Every way to write n as a product of `rank` factors, in order.
void factor(std::int64_t n, std::size_t rank, std::vector<int>& current, std::vector<std::vector<int>>& all) {
  if (rank == 1) {
    current.push_back(static_cast<int>(n));
    all.push_back(current);
    current.pop_back();
    return;
  }
  for (std::int64_t f = 1; f <= n; ++f) {
    if (n % f != 0) continue;
    current.push_back(static_cast<int>(f));
    factor(n / f, rank - 1, current, all);
    current.pop_back();
  }
}

std::vector<std::vector<int>> factorizations(std::int64_t n, std::size_t rank) {
  std::vector<std::vector<int>> all;
  // Beyond three axes the slowest keep one token a tile.
  std::vector<int> current(rank > 3 ? rank - 3 : 0, 1);
  factor(n, std::min<std::size_t>(rank, 3), current, all);
  return all;
}

// In scores.
double weight(const TileGrid& grid, std::vector<AxisCost> axes, const ShapeRules& rules) {
  const TileShape& shape = grid.shape();
  double brought = rules.tile_weight * static_cast<double>(shape.keys()), queries = 1;
  for (const AxisCost& axis : axes) brought *= static_cast<double>(axis.visited);
  if (rules.part) {
    const std::vector<int> part = rules.part(shape);
    for (std::size_t i = 0; i < axes.size(); ++i) axes[i] = axis_cost(grid, i, Anchor::window, part[i]);
    for (const int tokens : part) queries *= tokens;
  } else {
    queries = static_cast<double>(shape.queries());
  }
  // A mask along an axis that costs nothing is none.
  if (shape.k.back() == rules.free_extent) axes.back().full = axes.back().visited;
  double visited = 1, full = 1;
  for (const AxisCost& axis : axes) {
    visited *= static_cast<double>(axis.visited);
    full *= static_cast<double>(axis.full);
  }
  const double scores = queries * static_cast<double>(shape.keys());
  const double computed = scores * (visited + rules.mask_weight * (visited - full));
  constexpr double kHidden = 0.02;  // of equals, the one that brings less
  return std::max(brought, computed) + kHidden * brought;
}

}  // namespace

bool block_sparse(const TileGrid& grid, std::size_t axis) {
  const AxisCost cost = axis_cost(grid, axis, Anchor::window);
  return cost.full == cost.visited;
}

TileCost neighborhood_cost(const TileGrid& grid, Anchor anchor) {
  std::vector<AxisCost> axes;
  for (std::size_t i = 0; i < grid.rank(); ++i) axes.push_back(axis_cost(grid, i, anchor));
  return product(grid, axes, kept_pairs(grid));
}

TileCost plan_cost(const TilePlan& plan, const Masks& masks, const CostOptions& options) {
  const TileGrid& grid = plan.grid();
  if (!plan.listed()) return neighborhood_cost(grid);
  const std::int64_t slices = plan.slices().count();
  TileCost cost;
  cost.tile_queries = grid.shape().queries();
  cost.tile_keys = grid.shape().keys();
  cost.rows = slices * filled_rows(grid);
  for (const Run& run : plan.runs()) {
    cost.visited += run.end() - run.begin;
    if (run.full()) cost.full += run.end() - run.begin;
  }
  cost.dense = slices * dense_tiles(grid.problem(), cost);
  cost.useful = count_kept_pairs(plan, masks, options.threads, options.most_looks);
  return cost;
}

std::vector<ShapeChoice> search_shapes(const runtime::Problem& problem, std::int64_t queries,
                                       std::int64_t keys, std::size_t most, const ShapeRules& rules,
                                       Side owner) {
  const std::size_t rank = problem.q_axis.size();
  const auto of_queries = factorizations(queries, rank), of_keys = factorizations(keys, rank);
  std::vector<ShapeChoice> choices;
  const double useful = kept_pairs(TileGrid(problem, {of_queries[0], of_keys[0]}, owner));
  // A pair of extents along one axis stands in many shapes.
  std::vector<std::vector<std::pair<std::pair<int, int>, AxisCost>>> known(rank);
  for (const std::vector<int>& q : of_queries) {
    for (const std::vector<int>& k : of_keys) {
      const std::optional<double> factor = rules.factor ? rules.factor({q, k}) : 1;
      if (!factor) continue;
      const TileGrid grid(problem, {q, k}, owner);
      std::vector<AxisCost> axes;
      for (std::size_t i = 0; i < rank; ++i) {
        auto& table = known[i];
        auto at =
            std::ranges::find(table, std::pair(q[i], k[i]), [](const auto& entry) { return entry.first; });
        if (at == table.end()) at = table.insert(at, {{q[i], k[i]}, axis_cost(grid, i, Anchor::window)});
        axes.push_back(at->second);
      }
      const TileCost cost = product(grid, axes, useful);
      choices.push_back({grid.shape(), cost, *factor * weight(grid, axes, rules)});
    }
  }
  // Of equals the one with the longer rows: neighbouring tokens lie along the last axis.
  const auto better = [](const ShapeChoice& a, const ShapeChoice& b) {
    if (a.weight != b.weight) return a.weight < b.weight;
    return std::pair(a.shape.k.back(), a.shape.q.back()) > std::pair(b.shape.k.back(), b.shape.q.back());
  };
  const std::size_t kept = std::min(most, choices.size());
  std::partial_sort(choices.begin(), choices.begin() + static_cast<std::ptrdiff_t>(kept), choices.end(),
                    better);
  choices.resize(kept);
  return choices;
}

}  // namespace vicinal::plan
