#include "runtime/hopper_backward_launch.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>

#include "runtime/hopper_boxes.h"
#include "runtime/plan/tile_grid.h"
#include "runtime/tile_words.h"

namespace vicinal::runtime {
namespace {

struct Row {
  const char* name;
  std::optional<BoxedView> view;
  cuda::Box box;
};

// In the order of TensorMaps.
std::vector<Row> rows(const BackwardProblem& of, const plan::TileShape& shape) {
  const Problem& p = of.problem;
  const cuda::Box queries = box_of(p, tokens_of_copy(p, shape.q)),
                  keys = box_of(p, tokens_of_copy(p, shape.k));
  cuda::Box group;
  const std::vector<int> tokens = *group_box(shape.k);
  std::copy(tokens.rbegin(), tokens.rend(), group.tokens.begin());
  return {
      {"q", boxed_view(p.q, p.head_dim, p.q_axis, p.heads, p.batch), queries},
      {"k", boxed_view(p.k, p.head_dim, p.k_axis, p.kv_heads, p.batch), keys},
      {"v", boxed_view(p.v, p.value_dim, p.k_axis, p.kv_heads, p.batch), keys},
      {"the gradient of out", boxed_view(of.outputs.out, p.value_dim, p.q_axis, p.heads, p.batch), queries},
      {"the gradient of k", boxed_view(of.inputs.k, p.head_dim, p.k_axis, p.kv_heads, p.batch), group},
      {"the gradient of v", boxed_view(of.inputs.v, p.value_dim, p.k_axis, p.kv_heads, p.batch), group}};
}

bool absent(const Row& row) {
  const cuda::BoxedTensor& t = row.view->tensor;
  return t.data == 0 || std::ranges::find(t.extent, 0) != t.extent.end();
}

std::int64_t query_tiles(const Problem& p, const plan::TileShape& shape) {
  return p.batch * p.heads * plan::TileGrid(p, shape).rows();
}
std::int64_t key_tiles(const Problem& p, const plan::TileShape& shape) {
  return p.batch * p.kv_heads * plan::TileGrid(p, shape, plan::Side::keys).grid_rows();
}

// All ways to write a power of two as a product of so many.
void factorizations(int product, std::size_t count, std::vector<int>& so_far,
                    std::vector<std::vector<int>>& all) {
  if (so_far.size() + 1 == count) {
    all.push_back(so_far);
    all.back().push_back(product);
    return;
  }
  for (int factor = 1; factor <= product; factor *= 2) {
    so_far.push_back(factor);
    factorizations(product / factor, count, so_far, all);
    so_far.pop_back();
  }
}
std::vector<std::vector<int>> boxes(int tokens, std::size_t rank) {
  std::vector<std::vector<int>> all;
  std::vector<int> none;
  factorizations(tokens, rank, none, all);
  return all;
}

// Whether eight columns side by side differ along one axis.
bool has_column_groups(const std::vector<int>& box) {
  const auto last = std::find_if(box.rbegin(), box.rend(), [](int extent) { return extent != 1; });
  return last != box.rend() && *last % kColumnGroup == 0;
}

// Pairs of boxes, of keys and of queries, along an axis or of them all: between which windows leave some pair
// of tokens, and of them those between which they leave all.
struct Meetings {
  double some = 0, all = 0;
};
Meetings meetings(const plan::TileGrid& grid, std::size_t i) {
  const Axis& axis = grid.axis(i);
  const int k = grid.shape().k[i], q = grid.shape().q[i];
  const auto origin = static_cast<int>(grid.problem().q_axis[i].origin);
  Meetings found;
  for (std::int64_t n = 0; n < grid.rows_along(plan::Side::keys, i); ++n) {
    const Stretch own = grid.tokens(plan::Side::keys, i, n);
    if (own.count == 0) continue;
    const Span span = grid.reach(i, own);
    if (span.begin >= span.end) continue;
    const int begin = group_position(axis, span.residue, origin);
    found.some += tile_count(span.end - begin, q) - (span.begin - begin) / q;
    if (own.count == k)
      found.all += std::max(0, (span.sure_end - begin) / q - tile_count(span.sure_begin - begin, q));
  }
  return found;
}

// More copies than that for a tile take longer than the products that wait for them.
constexpr int kMostCopies = 16;
// What finding the kept pairs adds to a tile; an estimate.
constexpr double kPartialWeight = 0.15;

// Heads of keys, and batches, that are at work at a time. Along one axis blocks come to the same queries at
// about the same time, so that few heads' stay in the L2 cache; but the more blocks a head has, the longer
// those wait that add in turn, unless windows keep them apart. Over more axes blocks are at all of a head's
// queries.
std::int64_t section(const Problem& p, bool in_turn) {
  std::int64_t heads = !in_turn ? 4 : p.axes.empty() ? 16 : 8;
  if (p.axes.size() > 1) {
    // Queries, gradients of out and sums.
    const std::int64_t bytes = p.local_queries() * (6 * p.head_dim + 2 * p.value_dim);
    heads = kSectionBytes / std::max<std::int64_t>(bytes, 1);
  }
  return std::clamp<std::int64_t>(heads, 1, std::max<std::int64_t>(p.batch * p.kv_heads, 1));
}

// The axis of which windows see the least: of neighbours along the others more queries are the same. Of a
// dilated axis one group's tokens at most, whose tiles are numbered together.
std::int64_t slowest_axis(const Problem& p) {
  const auto seen = [&](std::size_t i) {
    const Problem::AxisShape& axis = p.axes[i];
    const auto extent = static_cast<double>(p.q_axis[i].extent),
               group = extent / static_cast<double>(axis.dilation);
    return (axis.window == 0 ? group : static_cast<double>(axis.window)) / extent;
  };
  std::size_t slowest = 0;
  for (std::size_t i = 1; i < p.axes.size(); ++i)
    if (seen(i) < seen(slowest)) slowest = i;
  return static_cast<std::int64_t>(slowest);
}

}  // namespace

std::optional<std::string> hopper_backward_obstacle(const BackwardProblem& of) {
  const std::size_t rank = of.problem.q_axis.size();
  const plan::TileShape any{std::vector<int>(rank, 1), boxes(emit::kHopperBackwardTileK, rank).front()};
  std::vector<Row> all = rows(of, any);
  // Read and written by whole words.
  const Problem& p = of.problem;
  all.push_back({"out", boxed_view(p.out, p.value_dim, p.q_axis, p.heads, p.batch), {}});
  all.push_back({"the gradient of q", boxed_view(of.inputs.q, p.head_dim, p.q_axis, p.heads, p.batch), {}});
  for (const Row& row : all) {
    if (!row.view) return fmt::format("the copy engine cannot take {}", row.name);
    if (absent(row)) continue;
    if (const auto obstacle = cuda::tensor_map_obstacle(row.view->tensor))
      return fmt::format("the copy engine cannot take {}: {}", row.name, *obstacle);
  }
  return std::nullopt;
}

std::optional<plan::TileShape> hopper_backward_shape(const Problem& p,
                                                     const emit::HopperBackwardSchedule& schedule) {
  const std::size_t rank = p.q_axis.size();
  std::optional<plan::TileShape> best;
  double least = std::numeric_limits<double>::infinity();
  // By axis and its two extents.
  std::map<std::tuple<std::size_t, int, int>, Meetings> known;
  for (const std::vector<int>& k : boxes(emit::kHopperBackwardTileK, rank)) {
    if (!group_box(k) || copies_of(p, k) > kMostCopies) continue;
    for (const std::vector<int>& q : boxes(schedule.tile_q, rank)) {
      const int copies = copies_of(p, q);
      if (copies > kMostCopies || !has_column_groups(q)) continue;
      const plan::TileShape shape{q, k};
      const plan::TileGrid grid(p, shape, plan::Side::keys);
      Meetings all{1, 1};
      for (std::size_t i = 0; i < rank; ++i) {
        const auto [place, fresh] = known.try_emplace({i, q[i], k[i]});
        if (fresh) place->second = meetings(grid, i);
        all = {all.some * place->second.some, all.all * place->second.all};
      }
      const double cost = (1 + kCopyWeight * (copies - 1)) * all.some + kPartialWeight * (all.some - all.all);
      if (cost < least) {
        least = cost;
        best = shape;
      }
    }
  }
  return best;
}

Result<HopperBackwardLayout> hopper_backward_layout(const Problem& problem, const plan::TileShape& shape,
                                                    const emit::HopperBackwardSchedule& schedule,
                                                    const emit::PlannerSource* planner) {
  HopperBackwardLayout layout;
  const std::int64_t tiles = query_tiles(problem, shape);
  const auto take = [&](std::size_t& at, std::int64_t bytes) {
    at = layout.bytes;
    layout.bytes += (static_cast<std::size_t>(bytes) + 255) / 256 * 256;
  };
  take(layout.poisoned, 4);
  take(layout.drawn, 2 * 4);
  take(layout.finished, problem.batch * problem.kv_heads * 4);
  take(layout.turns, tiles * 4);
  layout.cleared = layout.bytes;
  take(layout.query_sums, tiles * schedule.sums_of_tile(static_cast<int>(problem.head_dim)) * 4);
  take(layout.query_rows, tiles * schedule.row_bytes_of_tile());
  if (planner == nullptr) {
    take(layout.reaches, tiles * static_cast<std::int64_t>(shape.q.size()) * 16);
  } else {
    VICINAL_TRY(layout.plan, planner_layout(*planner, problem, shape));
    take(layout.pairs, static_cast<std::int64_t>(layout.plan->bytes));
  }
  return layout;
}

Result<Launch> prepare_hopper_backward(const cuda::DriverApi& api, const BackwardProblem& of,
                                       const HopperBackwardLaunch& launch, const emit::KernelSource& source,
                                       emit::HopperBackwardStep step, const emit::KernelOptions& options,
                                       const ir::Module& module) {
  const Problem& p = of.problem;
  const std::int64_t blocks =
      step == emit::HopperBackwardStep::keys ? key_tiles(p, launch.shape) : query_tiles(p, launch.shape);
  if (blocks > std::numeric_limits<std::int32_t>::max())
    return unexpected(ErrorKind::limit, fmt::format("{} tiles are more than one launch takes", blocks),
                      "split the batch or the heads");
  Launch made;
  const auto append = [&](const void* from, std::size_t size) {
    const auto* begin = static_cast<const std::byte*>(from);
    made.arguments.insert(made.arguments.end(), begin, begin + size);
  };
  std::vector<std::int64_t> steps;
  for (const Row& row : rows(of, launch.shape)) {
    cuda::TensorMap map{};  // of a tensor that nobody reads
    if (!absent(row)) {
      VICINAL_TRY(map, cuda::encode(api, row.view->tensor, row.box));
    }
    append(map.bytes.data(), map.bytes.size());
    const auto& [channel, head, batch] = row.view->steps;
    steps.insert(steps.end(), {channel, head, batch});
  }
  const std::vector<std::int64_t> boxes = box_words(p, launch.shape, plan::Side::queries);
  steps.insert(steps.end(), boxes.begin(), boxes.end());
  steps.insert(steps.end(), {section(p, launch.in_turn), launch.in_turn ? 0 : slowest_axis(p)});
  append(steps.data(), steps.size() * sizeof(steps[0]));
  const std::uint64_t addresses[] = {launch.workspace + launch.layout.query_rows,
                                     launch.workspace + launch.layout.reaches,
                                     launch.workspace + launch.layout.query_sums,
                                     launch.workspace + launch.layout.drawn,
                                     launch.workspace + launch.layout.turns,
                                     launch.in_turn ? 0 : launch.workspace + launch.layout.finished,
                                     launch.workspace + launch.layout.poisoned};
  append(addresses, sizeof addresses);
  VICINAL_TRY(const cuda::ParameterWords parameters, parameter_words(source.parameters, options, module, p));
  cuda::BackwardWords backward;
  backward.d_out = words(of.outputs.out);
  backward.d_lse = words(of.outputs.lse);
  backward.d_q = words(of.inputs.q);
  backward.d_k = words(of.inputs.k);
  backward.d_v = words(of.inputs.v);
  backward.row_terms = of.workspace + of.layout.row_terms;
  const std::vector<std::byte> rest =
      cuda::write_arguments(forward_words(p, launch.tiles(p)), parameters, backward);
  append(rest.data(), rest.size());
  // As long as the kernel's parameter, whose alignment is a tensor map's.
  made.arguments.resize((made.arguments.size() + alignof(cuda::TensorMap) - 1) / alignof(cuda::TensorMap) *
                        alignof(cuda::TensorMap));
  made.shape.grid.x = static_cast<unsigned>(blocks);
  made.shape.block.x = static_cast<unsigned>(source.threads);
  made.shape.dynamic_shared_bytes = static_cast<unsigned>(source.shared_bytes);
  return made;
}

}  // namespace vicinal::runtime
