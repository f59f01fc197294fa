// What the lanes of a warp do together, in cuda_on_host.h's way.
#pragma once

#include "cuda_on_host.h"

namespace cuda_on_host {

// Every lane of a warp shows something of up to 32 bytes, and then looks at what the others show.
template <class Shown, class Look>
auto among_lanes(const Shown& mine, Look look) {
  static_assert(sizeof(Shown) <= 32);
  struct Slot {
    alignas(16) char bytes[32];
  };
  static std::vector<Slot> slots;
  if (slots.size() < block.threads.size()) slots.resize(block.threads.size());
  const unsigned self = thread_index.x, first = self / 32 * 32;
  std::memcpy(slots[self].bytes, &mine, sizeof(Shown));
  meet(own_warp(), false);
  const auto result = look([&](unsigned lane) {
    Shown shown;
    std::memcpy(&shown, slots[first + lane % 32].bytes, sizeof(Shown));
    return shown;
  });
  meet(own_warp(), false);
  return result;
}

template <class T, class Combine>
T over_warp(T mine, Combine combine) {
  return among_lanes(mine, [&](auto of) {
    T all = of(0);
    for (unsigned lane = 1; lane < 32; ++lane) all = combine(all, of(lane));
    return all;
  });
}

}  // namespace cuda_on_host

inline void __syncwarp() {
  cuda_on_host::meet(cuda_on_host::own_warp(), false);
}
template <class T>
T __shfl_sync(unsigned, T x, int lane) {
  return cuda_on_host::among_lanes(x, [&](auto of) { return of(static_cast<unsigned>(lane)); });
}
template <class T>
T __shfl_xor_sync(unsigned, T x, int mask) {
  const unsigned self = threadIdx.x % 32;
  return cuda_on_host::among_lanes(x, [&](auto of) { return of(self ^ static_cast<unsigned>(mask)); });
}
inline int __any_sync(unsigned, int predicate) {
  return cuda_on_host::meet(cuda_on_host::own_warp(), predicate != 0);
}
inline int __all_sync(unsigned, int predicate) {
  return !cuda_on_host::meet(cuda_on_host::own_warp(), predicate == 0);
}
inline int __reduce_min_sync(unsigned, int x) {
  return cuda_on_host::over_warp(x, [](int a, int b) { return a < b ? a : b; });
}
inline int __reduce_max_sync(unsigned, int x) {
  return cuda_on_host::over_warp(x, [](int a, int b) { return a > b ? a : b; });
}
inline int __popc(unsigned x) {
  return std::popcount(x);
}
inline int __ffs(unsigned x) {
  return __builtin_ffs(static_cast<int>(x));
}
// One thread runs at a time.
inline unsigned atomicAdd(unsigned* to, unsigned x) {
  const unsigned before = *to;
  *to += x;
  return before;
}
inline unsigned atomicCAS(unsigned* at, unsigned expected, unsigned x) {
  const unsigned before = *at;
  if (before == expected) *at = x;
  return before;
}

struct alignas(16) float4 {
  float x, y, z, w;
};
