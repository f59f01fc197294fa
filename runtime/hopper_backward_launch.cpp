#include "runtime/hopper_backward_launch.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

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

// As far as tiles are cut by it.
Axis dilated_axis(const Problem& p, std::size_t i) {
  Axis axis{};
  axis.dilation = dilation_of(p, i);
  return axis;
}

std::int64_t tiles(const Problem& p, const std::vector<GridAxis>& axes, const std::vector<int>& tile) {
  std::int64_t count = 1;
  for (std::size_t i = 0; i < axes.size(); ++i)
    count *= rows_along(dilated_axis(p, i), static_cast<int>(axes[i].local), tile[i]);
  return count;
}
std::int64_t query_tiles(const Problem& p, const plan::TileShape& shape) {
  return p.batch * p.heads * tiles(p, p.q_axis, shape.q);
}
std::int64_t key_tiles(const Problem& p, const plan::TileShape& shape) {
  return p.batch * p.kv_heads * tiles(p, p.k_axis, shape.k);
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

// Boxes of queries that all boxes of keys meet along an axis: on average over where a window may begin.
double meetings(const Problem& p, std::size_t axis, int q, int k) {
  const std::int64_t extent = p.k_axis[axis].extent;
  const Axis a = dilated_axis(p, axis);
  const std::int64_t window = p.axes.empty() || p.axes[axis].window == 0 ? extent : p.axes[axis].window;
  const int local_q = static_cast<int>(p.q_axis[axis].local),
            local_k = static_cast<int>(p.k_axis[axis].local);
  return rows_along(a, local_k, k) *
         std::min<double>(rows_per_group(a, local_q, q),
                          (static_cast<double>(std::min(window, extent)) + k - 2) / q + 1);
}

// More copies than that for a tile take longer than the products that wait for them; and what each adds to
// them.
constexpr int kMostCopies = 16;
constexpr double kCopyWeight = 0.03;

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
  for (const std::vector<int>& k : boxes(emit::kHopperBackwardTileK, rank)) {
    if (!group_box(k) || copies_of(p, k) > kMostCopies) continue;
    for (const std::vector<int>& q : boxes(schedule.tile_q, rank)) {
      const int copies = copies_of(p, q);
      if (copies > kMostCopies) continue;
      double cost = 1 + kCopyWeight * (copies - 1);
      for (std::size_t i = 0; i < rank; ++i) cost *= meetings(p, i, q[i], k[i]);
      if (cost < least) {
        least = cost;
        best = plan::TileShape{q, k};
      }
    }
  }
  return best;
}

HopperBackwardLayout hopper_backward_layout(const Problem& problem, const plan::TileShape& shape,
                                            const emit::HopperBackwardSchedule& schedule) {
  HopperBackwardLayout layout;
  const std::int64_t tiles = query_tiles(problem, shape);
  const auto take = [&](std::size_t& at, std::int64_t bytes) {
    at = layout.bytes;
    layout.bytes += (static_cast<std::size_t>(bytes) + 255) / 256 * 256;
  };
  take(layout.poisoned, 4);
  take(layout.drawn, 4);
  take(layout.turns, tiles * 4);
  take(layout.query_sums, tiles * schedule.sums_of_tile(static_cast<int>(problem.head_dim)) * 4);
  layout.cleared = layout.bytes;
  const auto rank = static_cast<int>(problem.q_axis.size());
  take(layout.query_rows, tiles * schedule.row_bytes_of_tile(rank));
  take(layout.reaches, tiles * rank * 16);
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
  for (const std::vector<int>* tile : {&launch.shape.q, &launch.shape.k})
    for (const int tokens : tokens_of_copy(p, *tile)) steps.push_back(tokens);
  append(steps.data(), steps.size() * sizeof(steps[0]));
  const std::uint64_t addresses[] = {launch.workspace + launch.layout.query_rows,
                                     launch.workspace + launch.layout.reaches,
                                     launch.workspace + launch.layout.query_sums,
                                     launch.workspace + launch.layout.drawn,
                                     launch.in_turn ? launch.workspace + launch.layout.turns : 0,
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
      cuda::write_arguments(forward_words(p, tile_words(p, launch.shape)), parameters, backward);
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
