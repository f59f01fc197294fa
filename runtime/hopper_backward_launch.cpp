#include "runtime/hopper_backward_launch.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "runtime/hopper_boxes.h"
#include "runtime/tile_words.h"

namespace vicinal::runtime {
namespace {

constexpr int kGroupKeys = 64;

struct Row {
  const char* name;
  std::optional<BoxedView> view;
  int tokens;  // of a box
};

// In the order of TensorMaps.
std::vector<Row> rows(const BackwardProblem& of, int tile_q) {
  const Problem& p = of.problem;
  const int tile_k = emit::kHopperBackwardTileK;
  return {
      {"q", boxed_view(p.q, p.head_dim, p.q_axis, p.heads, p.batch), tile_q},
      {"k", boxed_view(p.k, p.head_dim, p.k_axis, p.kv_heads, p.batch), tile_k},
      {"v", boxed_view(p.v, p.value_dim, p.k_axis, p.kv_heads, p.batch), tile_k},
      {"the gradient of out", boxed_view(of.given.out, p.value_dim, p.q_axis, p.heads, p.batch), tile_q},
      {"the gradient of k", boxed_view(of.wanted.k, p.head_dim, p.k_axis, p.kv_heads, p.batch), kGroupKeys},
      {"the gradient of v", boxed_view(of.wanted.v, p.value_dim, p.k_axis, p.kv_heads, p.batch), kGroupKeys}};
}

bool absent(const Row& row) {
  const cuda::BoxedTensor& t = row.view->tensor;
  return t.data == 0 || std::ranges::find(t.extent, 0) != t.extent.end();
}

cuda::TensorWords words(const Strided& t) {
  return {reinterpret_cast<std::uint64_t>(t.data), t.batch, t.head, t.dim, t.axis};
}

std::int64_t query_tiles(const Problem& p, const emit::HopperBackwardSchedule& schedule) {
  return p.batch * p.heads * ((p.local_queries() + schedule.tile_q - 1) / schedule.tile_q);
}
std::int64_t key_tiles(const Problem& p) {
  constexpr std::int64_t kTile = emit::kHopperBackwardTileK;
  return p.batch * p.kv_heads * ((p.local_keys() + kTile - 1) / kTile);
}

}  // namespace

std::optional<std::string> hopper_backward_obstacle(const BackwardProblem& of) {
  for (const Row& row : rows(of, kGroupKeys)) {
    if (!row.view) return fmt::format("the copy engine cannot take {}", row.name);
    if (absent(row)) continue;
    if (const auto obstacle = cuda::tensor_map_obstacle(row.view->tensor))
      return fmt::format("the copy engine cannot take {}: {}", row.name, *obstacle);
  }
  return std::nullopt;
}

HopperBackwardLayout hopper_backward_layout(const Problem& problem,
                                            const emit::HopperBackwardSchedule& schedule) {
  HopperBackwardLayout layout;
  const std::int64_t tiles = query_tiles(problem, schedule);
  const auto take = [&](std::size_t& at, std::int64_t bytes) {
    at = layout.bytes;
    layout.bytes += (static_cast<std::size_t>(bytes) + 255) / 256 * 256;
  };
  take(layout.poisoned, 4);
  take(layout.turns, tiles * 4);
  take(layout.query_sums, tiles * schedule.sums_of_tile(static_cast<int>(problem.head_dim)) * 4);
  return layout;
}

Result<Launch> prepare_hopper_backward(const cuda::DriverApi& api, const BackwardProblem& of,
                                       const HopperBackwardLaunch& launch, const emit::KernelSource& source,
                                       const emit::HopperBackwardSchedule& schedule,
                                       emit::HopperBackwardStep step, const emit::KernelOptions& options,
                                       const ir::Module& module) {
  const Problem& p = of.problem;
  const std::int64_t blocks =
      step == emit::HopperBackwardStep::keys ? key_tiles(p) : query_tiles(p, schedule);
  if (blocks > std::numeric_limits<std::int32_t>::max())
    return unexpected(ErrorKind::limit, fmt::format("{} tiles are more than one launch takes", blocks),
                      "split the batch or the heads");
  Launch made;
  const auto append = [&](const void* from, std::size_t size) {
    const auto* begin = static_cast<const std::byte*>(from);
    made.arguments.insert(made.arguments.end(), begin, begin + size);
  };
  for (const Row& row : rows(of, schedule.tile_q)) {
    cuda::TensorMap map{};  // of a tensor that nobody reads
    if (!absent(row)) {
      cuda::Box box;
      box.tokens[0] = row.tokens;
      VICINAL_TRY(map, cuda::encode(api, row.view->tensor, box));
    }
    append(map.bytes.data(), map.bytes.size());
  }
  const std::uint64_t addresses[] = {launch.workspace + launch.layout.query_sums,
                                     launch.in_turn ? launch.workspace + launch.layout.turns : 0,
                                     launch.workspace + launch.layout.poisoned};
  append(addresses, sizeof addresses);
  VICINAL_TRY(const cuda::ParameterWords parameters, parameter_words(source.parameters, options, module, p));
  cuda::BackwardWords backward;
  backward.d_out = words(of.given.out);
  backward.d_q = words(of.wanted.q);
  backward.d_k = words(of.wanted.k);
  backward.d_v = words(of.wanted.v);
  backward.row_terms = of.workspace + of.layout.row_terms;
  const std::vector<std::byte> rest =
      cuda::write_arguments(forward_words(p, tile_words(p, of.shape)), parameters, backward);
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
