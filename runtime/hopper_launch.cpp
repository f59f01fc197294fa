#include "runtime/hopper_launch.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "runtime/hopper_boxes.h"

namespace vicinal::runtime {
namespace {

struct Tensors {
  std::optional<BoxedView> q, k, v, context_k, context_v, out;
};

Tensors tensors(const Problem& p) {
  const std::vector<GridAxis> context = {{p.context, p.context, 0}};
  return {boxed_view(p.q, p.head_dim, p.q_axis, p.heads, p.batch),
          boxed_view(p.k, p.head_dim, p.k_axis, p.kv_heads, p.batch),
          boxed_view(p.v, p.value_dim, p.k_axis, p.kv_heads, p.batch),
          boxed_view(p.context_k, p.head_dim, context, p.kv_heads, p.batch),
          boxed_view(p.context_v, p.value_dim, context, p.kv_heads, p.batch),
          boxed_view(p.out, p.value_dim, p.q_axis, p.heads, p.batch)};
}

bool empty(const cuda::BoxedTensor& t) {
  return std::ranges::find(t.extent, 0) != t.extent.end();
}

// Keys and values of the heads whose tiles alternate should stay in the L2 cache together.
std::int64_t section(const Problem& p, bool unequal) {
  const std::int64_t slices = p.heads * p.batch;
  if (!unequal) return 1;
  const std::int64_t bytes =
      std::max<std::int64_t>(1, (p.local_keys() + p.context) * (p.head_dim + p.value_dim) * 2);
  const std::int64_t fit = std::max<std::int64_t>(1, kSectionBytes / bytes);
  return std::min(slices, static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(fit))) *
                              (p.heads / p.kv_heads));
}

}  // namespace

std::optional<std::string> hopper_tensor_obstacle(const Problem& p) {
  const Tensors t = tensors(p);
  const std::pair<const char*, const std::optional<BoxedView>*> all[] = {
      {"q", &t.q},    {"k", &t.k}, {"v", &t.v}, {"context_k", &t.context_k}, {"context_v", &t.context_v},
      {"out", &t.out}};
  for (const auto& [name, view] : all) {
    if (!*view)
      return fmt::format("the copy engine cannot take `{}`: its heads and batches have no common stride",
                         name);
    if (empty((*view)->tensor)) continue;
    if (const auto obstacle = cuda::tensor_map_obstacle((*view)->tensor))
      return fmt::format("the copy engine cannot take `{}`: {}", name, *obstacle);
  }
  return std::nullopt;
}

Result<std::vector<std::byte>> hopper_prefix(const cuda::DriverApi& api, const Problem& p,
                                             const plan::TileShape& shape, cuda::DevicePointer counters,
                                             bool unequal) {
  const Tensors t = tensors(p);
  struct Row {
    const BoxedView* view;
    cuda::Box box;
  };
  const cuda::Box queries = box_of(p, tokens_of_copy(p, shape.q)),
                  keys = box_of(p, tokens_of_copy(p, shape.k));
  cuda::Box context, out;
  context.tokens[0] = static_cast<int>(shape.keys());
  const std::vector<int> group = *group_box(shape.q);
  std::copy(group.rbegin(), group.rend(), out.tokens.begin());
  const Row rows[] = {{&*t.q, queries},         {&*t.k, keys}, {&*t.v, keys}, {&*t.context_k, context},
                      {&*t.context_v, context}, {&*t.out, out}};
  std::vector<std::byte> bytes;
  const auto append = [&](const void* from, std::size_t size) {
    const auto* begin = static_cast<const std::byte*>(from);
    bytes.insert(bytes.end(), begin, begin + size);
  };
  for (const Row& row : rows) {
    cuda::TensorMap map{};  // of a tensor without elements, which nobody reads
    if (!empty(row.view->tensor)) {
      VICINAL_TRY(map, cuda::encode(api, row.view->tensor, row.box));
    }
    append(map.bytes.data(), map.bytes.size());
  }
  std::vector<std::int64_t> words = {static_cast<std::int64_t>(counters), section(p, unequal)};
  for (const BoxedView* view : {&*t.q, &*t.k, &*t.v, &*t.out})
    words.insert(words.end(), {view->steps.channel, view->steps.head, view->steps.batch});
  const std::vector<std::int64_t> boxes = box_words(p, shape, plan::Side::keys);
  words.insert(words.end(), boxes.begin(), boxes.end());
  append(words.data(), words.size() * sizeof(words[0]));
  return bytes;
}

}  // namespace vicinal::runtime
