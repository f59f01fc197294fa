// What stands in a tensor map where there is no driver to encode one: everything that its box and its tensor
// are described by.
#pragma once

#include <cstdint>
#include <cstring>

namespace cuda_on_host {

struct HostTensorMap {
  char* data;
  std::int64_t extent[5];
  std::int64_t stride[5];  // bytes
  std::uint16_t count[5];  // elements that a box brings
  std::uint16_t step[5];   // from one to the next
};
static_assert(sizeof(HostTensorMap) <= 128);

inline float f16_to_float(std::uint16_t bits) {
  _Float16 x;
  std::memcpy(&x, &bits, 2);
  return static_cast<float>(x);
}

}  // namespace cuda_on_host
