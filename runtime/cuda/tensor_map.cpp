#include "runtime/cuda/tensor_map.h"

#include <fmt/format.h>

namespace vicinal::cuda {
namespace {

// Limits of cuTensorMapEncodeTiled (CUDA driver API, "Tensor Map Object Management").
constexpr std::int64_t kAlignment = 16, kMostExtent = std::int64_t{1} << 32,
                       kMostStride = std::int64_t{1} << 40;
constexpr std::int64_t kElementBytes = 2;

}  // namespace

std::optional<std::string> tensor_map_obstacle(const BoxedTensor& t) {
  if (t.data % kAlignment != 0) return "its data are not aligned to 16 bytes";
  if (t.extent[0] > 1 && t.stride[0] != 1) return "its channels do not follow each other";
  for (int i = 1; i < BoxedTensor::kRank; ++i) {
    if (t.extent[i] > kMostExtent) return fmt::format("an extent of {} is too long", t.extent[i]);
    if (t.extent[i] <= 1) continue;
    const std::int64_t bytes = t.stride[i] * kElementBytes;
    if (bytes <= 0 || bytes >= kMostStride || bytes % kAlignment != 0)
      return fmt::format("a stride of {} elements is not a positive multiple of 16 bytes below 2^40",
                         t.stride[i]);
  }
  return std::nullopt;
}

Result<TensorMap> encode(const DriverApi& api, const BoxedTensor& t, const Box& box) {
  constexpr int kRank = BoxedTensor::kRank, kChannels = 64;
  unsigned long long extents[kRank], strides[kRank - 1];
  for (int i = 0; i < kRank; ++i) extents[i] = static_cast<unsigned long long>(t.extent[i]);
  for (int i = 1; i < kRank; ++i)
    strides[i - 1] =
        static_cast<unsigned long long>(t.extent[i] > 1 ? t.stride[i] * kElementBytes : kAlignment);
  // The driver counts the elements that a box spans, and not those that it holds.
  unsigned spans[kRank] = {kChannels, 1, 1, 1, 1}, steps[kRank] = {1, 1, 1, 1, 1};
  for (std::size_t i = 0; i < box.tokens.size(); ++i) {
    spans[1 + i] = static_cast<unsigned>(box.tokens[i] * box.step[i]);
    steps[1 + i] = static_cast<unsigned>(box.step[i]);
  }
  TensorMap map;
  VICINAL_TRY_VOID(check(api, api.tensor_map_encode, map.bytes.data(),
                         t.dtype == DType::bf16 ? TensorMapType::bf16 : TensorMapType::f16, unsigned{kRank},
                         reinterpret_cast<void*>(t.data), extents, strides, spans, steps,
                         TensorMapInterleave::none, TensorMapSwizzle::bytes_128,
                         TensorMapPromotion::bytes_256, TensorMapFill::zeros));
  return map;
}

}  // namespace vicinal::cuda
