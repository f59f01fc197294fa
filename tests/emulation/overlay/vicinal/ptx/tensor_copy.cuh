// In place of templates/vicinal/ptx/tensor_copy.cuh where a kernel runs on the host.
#pragma once

#include "vicinal/platform.cuh"

namespace vicinal {

struct alignas(64) TensorMap {
  char bytes[128];
};
struct BoxOrigin {
  int channel, second, third, fourth, last;
};
constexpr u64 kEvictLast = 0, kEvictFirst = 0;

template <class Each>
VICINAL_DEVICE void each_word(const TensorMap* map, const BoxOrigin& at, u32 address, Each each) {
  cuda_on_host::HostTensorMap described;
  memcpy(&described, map->bytes, sizeof described);
  const int origin[5] = {at.channel, at.second, at.third, at.fourth, at.last};
  cuda_on_host::each_word(described, address, origin, each);
}
VICINAL_DEVICE void copy_box(u32 to, const TensorMap* map, const BoxOrigin& at, u32 barrier, u64) {
  int bytes = 0;
  each_word(map, at, to, [&](char* shared, const char* tensor) {
    if (tensor == nullptr) {
      memset(shared, 0, 2);
    } else {
      memcpy(shared, tensor, 2);
    }
    bytes += 2;
  });
  cuda_on_host::Barrier& b = cuda_on_host::barrier_at(barrier);
  b.bytes -= bytes;
  cuda_on_host::complete(b);
}
VICINAL_DEVICE void copy_bytes(u32 to, const void* from, u32 bytes, u32 barrier) {
  memcpy(cuda_on_host::shared_memory + to, from, bytes);
  cuda_on_host::Barrier& b = cuda_on_host::barrier_at(barrier);
  b.bytes -= static_cast<int>(bytes);
  cuda_on_host::complete(b);
}
VICINAL_DEVICE void store_box(const TensorMap* map, const BoxOrigin& at, u32 from) {
  each_word(map, at, from, [&](const char* shared, char* tensor) {
    if (tensor != nullptr) memcpy(tensor, shared, 2);
  });
}
VICINAL_DEVICE void store_bytes(void* to, u32 from, u32 bytes) {
  memcpy(to, cuda_on_host::shared_memory + from, bytes);
}
VICINAL_DEVICE void add_floats(float* to, u32 from, u32 bytes) {
  for (u32 i = 0; i < bytes / 4; ++i) {
    float x;
    memcpy(&x, cuda_on_host::shared_memory + from + 4 * i, 4);
    to[i] += x;
  }
}
VICINAL_DEVICE void store_commit() {}
VICINAL_DEVICE void store_wait_read() {}
VICINAL_DEVICE void store_wait() {}

}  // namespace vicinal
