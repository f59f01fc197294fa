#include "runtime/plan/tile_cost.h"

#include <algorithm>
#include <mutex>

#include "runtime/host/parallel.h"

namespace vicinal::plan {
namespace {

// Along one axis, summed over its tiles of queries.
struct AxisCost {
  std::int64_t rows = 0, visited = 0, full = 0;
};

AxisCost axis_cost(const TileGrid& grid, std::size_t i, int tile_k, Anchor anchor) {
  AxisCost cost;
  for (std::int64_t n = 0; n < grid.rows_along(i); ++n) {
    const Stretch queries = grid.queries(i, n);
    if (queries.count == 0) continue;
    ++cost.rows;
    KeySpan span = grid.keys(i, queries);
    if (anchor == Anchor::grid) span.begin -= span.begin % tile_k;
    const int tiles = span.tiles(tile_k);
    cost.visited += tiles;
    for (int t = 0; t < tiles; ++t) cost.full += span.full(tile_k, t);
  }
  return cost;
}

// Pairs that see each other along one axis.
std::int64_t axis_pairs(const TileGrid& grid, std::size_t i) {
  std::int64_t pairs = 0;
  const runtime::GridAxis& local = grid.problem().q_axis[i];
  for (std::int64_t x = local.origin; x < local.origin + local.local; ++x) {
    const KeySpan keys = grid.keys(i, {static_cast<int>(x), 1});
    pairs += keys.end - keys.begin;
  }
  return pairs;
}

double kept_pairs(const TileGrid& grid) {
  double pairs = 1;
  for (std::size_t i = 0; i < grid.rank(); ++i) pairs *= static_cast<double>(axis_pairs(grid, i));
  return pairs;
}

TileCost product(const TileGrid& grid, const std::vector<AxisCost>& axes, double useful) {
  const TileShape& shape = grid.shape();
  TileCost cost;
  cost.tile_queries = shape.queries();
  cost.tile_keys = shape.keys();
  cost.rows = cost.visited = cost.full = 1;
  cost.useful = useful;
  for (const AxisCost& a : axes) {
    cost.rows *= a.rows;
    cost.visited *= a.visited;
    cost.full *= a.full;
  }
  cost.computed = static_cast<double>(cost.visited) * static_cast<double>(cost.tile_queries * cost.tile_keys);
  cost.all =
      static_cast<double>(grid.problem().local_queries()) * static_cast<double>(grid.problem().local_keys());
  return cost;
}

std::int64_t size(const std::vector<Stretch>& box) {
  std::int64_t tokens = 1;
  for (const Stretch& s : box) tokens *= s.count;
  return tokens;
}

// Kept pairs of two boxes, by halving what is mixed.
class PairCounter {
 public:
  PairCounter(Classifier& classifier, const TileGrid& grid, bool context)
      : classifier_(classifier), grid_(grid), context_(context) {}

  std::int64_t count(const std::vector<Stretch>& queries, const std::vector<Stretch>& keys) {
    classifier_.queries(queries);
    classifier_.keys(keys, context_);
    const ranges::Truth t = classifier_.evaluate();
    if (ranges::never(t)) return 0;
    const std::int64_t q = size(queries), k = size(keys);
    if (ranges::always(t)) return q * k;
    if (q == 1 && k == 1) return 0;  // only a comparison with NaN stays open, and it fails
    std::int64_t sum = 0;
    const auto longest = [](const std::vector<Stretch>& box) {
      return static_cast<std::size_t>(std::ranges::max_element(box, {}, &Stretch::count) - box.begin());
    };
    const bool of_queries = q >= k;
    const std::vector<Stretch>& box = of_queries ? queries : keys;
    const std::size_t axis = longest(box);
    const int dilation = !of_queries && context_ ? 1 : grid_.axis(axis).dilation, half = box[axis].count / 2;
    for (const Stretch& part : {Stretch{box[axis].first, half},
                                Stretch{box[axis].first + half * dilation, box[axis].count - half}}) {
      std::vector<Stretch> halved = box;
      halved[axis] = part;
      sum += of_queries ? count(halved, keys) : count(queries, halved);
    }
    return sum;
  }

 private:
  Classifier& classifier_;
  const TileGrid& grid_;
  bool context_;
};

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

}  // namespace

TileCost neighborhood_cost(const TileGrid& grid, Anchor anchor) {
  std::vector<AxisCost> axes;
  for (std::size_t i = 0; i < grid.rank(); ++i) axes.push_back(axis_cost(grid, i, grid.shape().k[i], anchor));
  return product(grid, axes, kept_pairs(grid));
}

TileCost plan_cost(const TilePlan& plan, const Masks& masks, unsigned threads) {
  const TileGrid& grid = plan.grid();
  const runtime::Problem& p = grid.problem();
  const Slices& slices = plan.slices();
  TileCost total;
  total.tile_queries = grid.shape().queries();
  total.tile_keys = grid.shape().keys();
  total.rows = grid.rows() * slices.count();
  total.all = static_cast<double>(p.local_queries()) * static_cast<double>(p.local_keys() + p.context) *
              static_cast<double>(slices.count());
  const MaskPrograms programs(masks, p, threads);
  std::mutex lock;
  host::parallel_for(total.rows, threads, [&](std::int64_t n) {
    const std::int64_t slice = n / grid.rows(), number = n % grid.rows();
    Classifier classifier(programs, grid);
    classifier.slice(slice / slices.heads, slice % slices.heads * slices.heads_per_slice);
    Row row;
    grid.row(number, row);
    std::int64_t visited = 0, fulls = 0, useful = 0;
    std::vector<Stretch> keys;
    plan.each_tile(slice, number, row, [&](std::int64_t t, bool full) {
      ++visited;
      fulls += full;
      grid.tile(row, t, keys);
      useful += full ? size(row.queries) * size(keys)
                     : PairCounter(classifier, grid, grid.is_context(row, t)).count(row.queries, keys);
    });
    const std::lock_guard guard(lock);
    total.visited += visited;
    total.full += fulls;
    total.useful += static_cast<double>(useful);
  });
  total.computed =
      static_cast<double>(total.visited) * static_cast<double>(total.tile_queries * total.tile_keys);
  return total;
}

std::vector<ShapeChoice> search_shapes(const runtime::Problem& problem, std::int64_t queries,
                                       std::int64_t keys, double mask_weight, std::size_t most) {
  const std::size_t rank = problem.q_axis.size();
  const auto of_queries = factorizations(queries, rank), of_keys = factorizations(keys, rank);
  std::vector<ShapeChoice> choices;
  const double useful = kept_pairs(TileGrid(problem, {of_queries[0], of_keys[0]}));
  // A pair of extents along one axis stands in many shapes.
  std::vector<std::vector<std::pair<std::pair<int, int>, AxisCost>>> known(rank);
  for (const std::vector<int>& q : of_queries) {
    for (const std::vector<int>& k : of_keys) {
      const TileGrid grid(problem, {q, k});
      std::vector<AxisCost> axes;
      for (std::size_t i = 0; i < rank; ++i) {
        auto& table = known[i];
        auto at =
            std::ranges::find(table, std::pair(q[i], k[i]), [](const auto& entry) { return entry.first; });
        if (at == table.end())
          at = table.insert(at, {{q[i], k[i]}, axis_cost(grid, i, k[i], Anchor::window)});
        axes.push_back(at->second);
      }
      const TileCost cost = product(grid, axes, useful);
      choices.push_back({grid.shape(), cost, cost.computed + mask_weight * cost.masked()});
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
