// In place of templates/vicinal/ptx/warpgroup.cuh where a kernel runs on the host.
#pragma once

#include "vicinal/ptx/convert.cuh"

namespace vicinal {

template <int Groups>
VICINAL_DEVICE void products_wait() {
  cuda_on_host::wait_for_products(Groups);
}
VICINAL_DEVICE void products_commit() {
  cuda_on_host::commit_products();
}
template <int N>
VICINAL_DEVICE void leave_undefined(float (&x)[N]) {
  for (float& value : x) value = NAN;
}
template <int Registers>
VICINAL_DEVICE void shrink_registers() {}
template <int Registers>
VICINAL_DEVICE void grow_registers() {}

constexpr int kSlabChannels = 64, kSlabRowBytes = 128;
constexpr int slabs(int channels) {
  return (channels + kSlabChannels - 1) / kSlabChannels;
}
VICINAL_DEVICE u64 operand(u32 address, u32 leading, u32 stride) {
  return static_cast<u64>((address & 0x3ffff) >> 4) | static_cast<u64>(leading >> 4) << 16 |
         static_cast<u64>(stride >> 4) << 32;
}

// A lane has of every matrix two neighbours of row lane / 4; the lanes' addresses are of rows, 8 a matrix.
VICINAL_DEVICE void store_matrices(u32 address, u32 a, u32 b, u32 c, u32 d) {
  struct Shown {
    u32 address, word[4];
  };
  const unsigned lane = threadIdx.x % 32;
  cuda_on_host::among_lanes(Shown{address, {a, b, c, d}}, [&](auto of) {
    const u32 mine[4] = {a, b, c, d};
    for (unsigned n = 0; n < 4; ++n)
      memcpy(cuda_on_host::shared_memory + of(8 * n + lane / 4).address + lane % 4 * 4, &mine[n], 4);
    return 0;
  });
}
// A lane has of every matrix rows 2 * (lane % 4) and the next, of column lane / 4.
VICINAL_DEVICE void store_transposed_matrices(u32 address, u32 a, u32 b, u32 c, u32 d) {
  struct Shown {
    u32 address;
  };
  const unsigned lane = threadIdx.x % 32;
  cuda_on_host::among_lanes(Shown{address}, [&](auto of) {
    const u32 mine[4] = {a, b, c, d};
    for (unsigned n = 0; n < 4; ++n)
      for (unsigned e = 0; e < 2; ++e) {
        const auto half = static_cast<unsigned short>(mine[n] >> 16 * e);
        memcpy(cuda_on_host::shared_memory + of(8 * n + lane % 4 * 2 + e).address + lane / 4 * 2, &half, 2);
      }
    return 0;
  });
}
VICINAL_DEVICE void store_shared(u32 address, float a, float b, float c, float d) {
  const float four[4] = {a, b, c, d};
  memcpy(cuda_on_host::shared_memory + address, four, sizeof four);
}
VICINAL_DEVICE uint4 load_shared(u32 address) {
  uint4 x;
  memcpy(&x, cuda_on_host::shared_memory + address, sizeof x);
  return x;
}

}  // namespace vicinal
