#include "runtime/backward_launch.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "runtime/binding/strides.h"

namespace vicinal::runtime {
namespace {

using emit::BackwardStep;

constexpr std::int64_t kMostBlocks = 512;                          // that sum captured gradients
constexpr std::int64_t kMostPartialBytes = std::int64_t{1} << 28;  // in which they do
constexpr std::int64_t kRowsOfBlock = 8;                           // a warp a row

// Rows of `dim` channels in C order.
Strided row_tensor(const Problem& p, std::int64_t dim, DType dtype, std::uint64_t address) {
  std::vector<std::int64_t> shape = {p.batch, p.heads};
  for (const GridAxis& a : p.q_axis) shape.push_back(a.local);
  shape.push_back(dim);
  const std::vector<std::int64_t> strides = c_order_strides(shape);
  return {reinterpret_cast<void*>(address),        dtype, strides[0], strides[1], 1,
          {strides.begin() + 2, strides.end() - 1}};
}

bool wants_captured(const BoundDifferentials& wanted, const std::vector<emit::CapturedSlot>& captured) {
  return std::ranges::any_of(captured, [&](const emit::CapturedSlot& slot) {
    return (slot.param ? wanted.params : wanted.inputs)[slot.index].data != nullptr;
  });
}

std::int64_t context_tiles(const Problem& p) {
  return (p.context + emit::kBackwardTile - 1) / emit::kBackwardTile;
}

cuda::BackwardWords backward_words(const BackwardProblem& of, const std::vector<emit::CapturedSlot>& captured,
                                   BackwardStep step) {
  const Problem& p = of.problem;
  cuda::BackwardWords words_of;
  words_of.given_d_out = words(of.outputs.out);
  // Of backward only the first kernel works on the caller's tensor where there is an output expression.
  words_of.d_out = of.has_output && step != BackwardStep::rows && step != BackwardStep::tangents
                       ? words(row_tensor(p, p.value_dim, DType::f32, of.workspace + of.layout.d_rows))
                       : words_of.given_d_out;
  words_of.d_lse = words(of.outputs.lse);
  words_of.d_q = words(of.inputs.q);
  words_of.d_k = words(of.inputs.k);
  words_of.d_v = words(of.inputs.v);
  words_of.d_context_k = words(of.inputs.context_k);
  words_of.d_context_v = words(of.inputs.context_v);
  if (step == BackwardStep::queries || step == BackwardStep::keys) words_of.only_if = of.only_if;
  words_of.key_rows = plan::TileGrid(p, of.shape, plan::Side::keys).grid_rows();
  words_of.d_rows = of.workspace + of.layout.d_rows;
  words_of.row_terms = of.workspace + of.layout.row_terms;
  words_of.partial_sums = of.workspace + of.layout.partial_sums;
  words_of.captured_elements = of.layout.elements;
  words_of.partial_blocks = of.layout.blocks;
  for (std::size_t i = 0; i < captured.size(); ++i) {
    const emit::CapturedSlot& slot = captured[i];
    const void* data = (slot.param ? of.inputs.params : of.inputs.inputs)[slot.index].data;
    words_of.captured.push_back(
        {reinterpret_cast<std::uint64_t>(data), of.layout.begins[i], of.layout.counts[i]});
  }
  return words_of;
}

// Blocks of a step; 0 where it has nothing to do.
std::int64_t blocks_of(const BackwardProblem& of, const std::vector<emit::CapturedSlot>& captured,
                       BackwardStep step, const cuda::BackwardWords& words_of, std::int64_t query_tiles) {
  const Problem& p = of.problem;
  const BoundDifferentials& wanted = of.inputs;
  const bool keys = wanted.k.data != nullptr || wanted.v.data != nullptr ||
                    wanted.context_k.data != nullptr || wanted.context_v.data != nullptr;
  const bool sums = wants_captured(wanted, captured);
  switch (step) {
    case BackwardStep::rows:
      return std::min<std::int64_t>((p.rows() + kRowsOfBlock - 1) / kRowsOfBlock, 1 << 20);
    case BackwardStep::queries: return wanted.q.data != nullptr ? p.batch * p.heads * query_tiles : 0;
    case BackwardStep::keys: return keys ? p.batch * p.kv_heads * (words_of.key_rows + context_tiles(p)) : 0;
    case BackwardStep::captured: return sums ? of.layout.blocks : 0;
    case BackwardStep::tangents: return p.batch * p.heads * query_tiles;
    case BackwardStep::sums:
      return sums ? std::min<std::int64_t>((of.layout.elements + 255) / 256, 1 << 16) : 0;
  }
  return 0;
}

Result<void> expect_dtype(std::string_view noun, std::string_view name, const Strided& t, DType dtype) {
  if (t.data == nullptr || t.dtype == dtype) return {};
  return unexpected(ErrorKind::spec,
                    fmt::format("the {} of {} is {}, and the kernel was compiled for {}", noun, name,
                                vicinal::name_of(t.dtype), vicinal::name_of(dtype)),
                    fmt::format("on a GPU {}s have the dtype of their tensors", noun));
}

}  // namespace

std::int64_t elements_of(const Problem& problem, const emit::CapturedSlot& slot) {
  std::int64_t count = 1;
  if (!slot.param)
    for (const std::int64_t extent : problem.inputs[slot.index].extents) count *= extent;
  return count;
}

Result<BackwardLayout> backward_layout(const Problem& p, const std::vector<emit::CapturedSlot>& captured,
                                       bool has_output, DType dtype) {
  BackwardLayout layout;
  const auto take = [&](std::size_t& at, std::int64_t bytes) {
    at = layout.bytes;
    layout.bytes += (static_cast<std::size_t>(bytes) + 255) / 256 * 256;
  };
  take(layout.row_terms, p.rows() * 4);
  if (has_output) {
    take(layout.d_rows, p.rows() * p.value_dim * 4);
    take(layout.out, p.rows() * p.value_dim * static_cast<std::int64_t>(size_of(dtype)));
  }
  std::int64_t most = 0;
  for (const emit::CapturedSlot& slot : captured) {
    const std::int64_t count = elements_of(p, slot), listed = slot.in_place ? 0 : count;
    layout.begins.push_back(slot.in_place ? 0 : layout.elements);
    layout.counts.push_back(listed);
    layout.elements += listed;
    most = std::max({most, count, layout.elements});
  }
  if (most >= std::numeric_limits<std::uint32_t>::max())
    return unexpected(ErrorKind::limit,
                      fmt::format("the gradients of captured tensors have {} elements", most),
                      "2^32 - 2 is the most that one launch takes");
  const std::int64_t room = kMostPartialBytes / (4 * std::max<std::int64_t>(1, layout.elements));
  const std::int64_t tiles = p.rows() / emit::kBackwardTile + 1;
  layout.blocks = std::clamp<std::int64_t>(room, 1, std::min(kMostBlocks, tiles));
  take(layout.partial_sums, layout.blocks * layout.elements * 4);
  return layout;
}

Problem problem_before_output(const Problem& problem, const BackwardLayout& layout, std::uint64_t workspace) {
  Problem p = problem;
  p.out = row_tensor(problem, problem.value_dim, problem.q.dtype, workspace + layout.out);
  p.lse.data = nullptr;
  return p;
}

Result<void> check_backward(const BackwardProblem& of, const std::vector<emit::CapturedSlot>& captured,
                            DType dtype) {
  VICINAL_TRY_VOID(expect_dtype(of.noun, "out", of.outputs.out, dtype));
  VICINAL_TRY_VOID(expect_dtype(of.noun, "lse", of.outputs.lse, DType::f32));
  for (const auto& [name, tensor] :
       {std::pair("q", &of.inputs.q), std::pair("k", &of.inputs.k), std::pair("v", &of.inputs.v),
        std::pair("context_k", &of.inputs.context_k), std::pair("context_v", &of.inputs.context_v)})
    VICINAL_TRY_VOID(expect_dtype(of.noun, name, *tensor, dtype));
  for (const emit::CapturedSlot& slot : captured) {
    const auto& target = (slot.param ? of.inputs.params : of.inputs.inputs)[slot.index];
    if (target.data == nullptr) continue;
    const bool in_order =
        slot.param || target.strides == c_order_strides(of.problem.inputs[slot.index].extents);
    if (target.dtype != DType::f32 || !in_order)
      return unexpected(ErrorKind::spec,
                        fmt::format("on a GPU the {} of an input or param is f32, in C order", of.noun),
                        "convert it");
  }
  return {};
}

Result<std::optional<Launch>> prepare_backward(const BackwardProblem& of, const emit::BackwardSource& source,
                                               BackwardStep step, const emit::KernelOptions& options,
                                               const ir::Module& module) {
  VICINAL_TRY(const cuda::ParameterWords parameters,
              parameter_words(source.kernel.parameters, options, module, of.problem));
  const cuda::TileWords& tiles = step == BackwardStep::keys ? of.tiles.keys : of.tiles.queries;
  const cuda::BackwardWords backward = backward_words(of, source.captured, step);
  const std::int64_t blocks = blocks_of(of, source.captured, step, backward, tiles.rows);
  if (blocks == 0) return std::optional<Launch>();
  if (blocks > std::numeric_limits<std::int32_t>::max())
    return unexpected(ErrorKind::limit, fmt::format("{} tiles are more than one launch takes", blocks),
                      "split the batch or the heads");
  cuda::ForwardWords forward = forward_words(of.problem, tiles);
  if (of.has_output)
    forward.out =
        words(row_tensor(of.problem, of.problem.value_dim, of.problem.q.dtype, of.workspace + of.layout.out));
  Launch launch;
  launch.arguments = cuda::write_arguments(forward, parameters, backward);
  launch.shape.grid.x = static_cast<unsigned>(blocks);
  launch.shape.block.x = static_cast<unsigned>(source.kernel.threads);
  return std::optional(std::move(launch));
}

}  // namespace vicinal::runtime
