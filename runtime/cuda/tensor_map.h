// Tensor maps: how the copy engine of sm_90 and later reads and writes boxes of a tensor.
#pragma once

#include <vicinal/dtype.h>

#include <array>
#include <optional>
#include <string>

#include "runtime/cuda/driver_api.h"

namespace vicinal::cuda {

// As the driver encodes it; lies at a multiple of 64 bytes.
struct alignas(64) TensorMap {
  std::array<std::byte, 128> bytes;
};

// f16 or bf16 with five dimensions, innermost first, whose elements follow each other along the innermost.
// Strides count elements; those of dimensions with one element do not matter.
struct BoxedTensor {
  static constexpr int kRank = 5;
  std::uint64_t data = 0;
  DType dtype = DType::bf16;
  std::array<std::int64_t, kRank> extent{};
  std::array<std::int64_t, kRank> stride{};
};

// Why the engine cannot read it; nothing where it can.
std::optional<std::string> tensor_map_obstacle(const BoxedTensor& tensor);

// So many tokens along the second and the next dimensions, at most 256, of every step-th element.
struct Box {
  std::array<int, 3> tokens = {1, 1, 1}, step = {1, 1, 1};
};

// For boxes of 64 channels, in the 128-byte swizzle. The tensor has no obstacle and no extent is 0.
Result<TensorMap> encode(const DriverApi& api, const BoxedTensor& tensor, const Box& box);

}  // namespace vicinal::cuda
