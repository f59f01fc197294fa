#include "runtime/hopper_launch.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "runtime/cuda/tensor_map.h"

namespace vicinal::runtime {
namespace {

// A sequence as the kernel sees it: channels, tokens, 1, heads, batch.
cuda::BoxedTensor boxed(const Strided& t, std::int64_t channels, std::int64_t tokens, std::int64_t heads,
                        std::int64_t batch) {
  const std::int64_t step = t.axis.empty() ? 0 : t.axis[0];
  return {reinterpret_cast<std::uint64_t>(t.data),
          t.dtype,
          {channels, tokens, 1, heads, batch},
          {t.dim, step, step, t.head, t.batch}};
}

struct Tensors {
  cuda::BoxedTensor q, k, v, context_k, context_v, out;
};

Tensors tensors(const Problem& p) {
  const std::int64_t queries = p.local_queries(), keys = p.local_keys();
  return {boxed(p.q, p.head_dim, queries, p.heads, p.batch),
          boxed(p.k, p.head_dim, keys, p.kv_heads, p.batch),
          boxed(p.v, p.value_dim, keys, p.kv_heads, p.batch),
          boxed(p.context_k, p.head_dim, p.context, p.kv_heads, p.batch),
          boxed(p.context_v, p.value_dim, p.context, p.kv_heads, p.batch),
          boxed(p.out, p.value_dim, queries, p.heads, p.batch)};
}

bool empty(const cuda::BoxedTensor& t) {
  return std::ranges::find(t.extent, 0) != t.extent.end();
}

// Keys and values of the heads whose tiles alternate should stay in the L2 cache together.
constexpr std::int64_t kSectionBytes = std::int64_t{32} << 20;

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
  const std::pair<const char*, const cuda::BoxedTensor*> all[] = {
      {"q", &t.q},    {"k", &t.k}, {"v", &t.v}, {"context_k", &t.context_k}, {"context_v", &t.context_v},
      {"out", &t.out}};
  for (const auto& [name, tensor] : all)
    if (!empty(*tensor))
      if (const auto obstacle = cuda::tensor_map_obstacle(*tensor))
        return fmt::format("the copy engine cannot take `{}`: {}", name, *obstacle);
  return std::nullopt;
}

Result<std::vector<std::byte>> hopper_prefix(const cuda::DriverApi& api, const emit::HopperSchedule& schedule,
                                             const Problem& p, cuda::DevicePointer counters, bool unequal) {
  const Tensors t = tensors(p);
  struct Row {
    const cuda::BoxedTensor* tensor;
    int rows;
  };
  constexpr int kGroupRows = 64;
  const Row rows[] = {{&t.q, schedule.tile_q},         {&t.k, schedule.tile_k},
                      {&t.v, schedule.tile_k},         {&t.context_k, schedule.tile_k},
                      {&t.context_v, schedule.tile_k}, {&t.out, kGroupRows}};
  std::vector<std::byte> bytes;
  const auto append = [&](const void* from, std::size_t size) {
    const auto* begin = static_cast<const std::byte*>(from);
    bytes.insert(bytes.end(), begin, begin + size);
  };
  for (const Row& row : rows) {
    cuda::TensorMap map{};  // of a tensor without elements, which nobody reads
    if (!empty(*row.tensor)) {
      VICINAL_TRY(map, cuda::encode(api, *row.tensor, row.rows));
    }
    append(map.bytes.data(), map.bytes.size());
  }
  const std::uint64_t counter_word = counters, section_word = static_cast<std::uint64_t>(section(p, unequal));
  append(&counter_word, sizeof counter_word);
  append(&section_word, sizeof section_word);
  return bytes;
}

}  // namespace vicinal::runtime
