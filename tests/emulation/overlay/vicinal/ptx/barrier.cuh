// In place of templates/vicinal/ptx/barrier.cuh where a kernel runs on the host.
#pragma once

#include "vicinal/platform.cuh"

namespace vicinal {

VICINAL_DEVICE u32 shared_address(const void* pointer) {
  return static_cast<u32>(static_cast<const char*>(pointer) - cuda_on_host::shared_memory);
}
VICINAL_DEVICE char* dynamic_shared() {
  return cuda_on_host::shared_memory + cuda_on_host::kSharedStart;
}

VICINAL_DEVICE void barrier_init(u32 barrier, u32 arrivals) {
  const auto count = static_cast<unsigned short>(arrivals);
  cuda_on_host::barrier_at(barrier) = {count, count, 0, 0};
}
VICINAL_DEVICE void barrier_arrive(u32 barrier) {
  cuda_on_host::Barrier& b = cuda_on_host::barrier_at(barrier);
  if (b.left == 0) cuda_on_host::fail("more arrive at a barrier than it waits for");
  --b.left;
  cuda_on_host::complete(b);
}
VICINAL_DEVICE void barrier_expect(u32 barrier, u32 bytes) {
  cuda_on_host::Barrier& b = cuda_on_host::barrier_at(barrier);
  b.bytes += static_cast<int>(bytes);
  barrier_arrive(barrier);
}
VICINAL_DEVICE void barrier_wait(u32 barrier, u32 parity) {
  cuda_on_host::wait_until([&] { return cuda_on_host::barrier_at(barrier).phase != parity; });
}
VICINAL_DEVICE u32 load_acquire(const u32* from) {
  return *from;
}
VICINAL_DEVICE void store_release(u32* to, u32 x) {
  *to = x;
}
VICINAL_DEVICE void add_release(u32* to, u32 x) {
  *to += x;
}
template <class Condition>
VICINAL_DEVICE void spin_until(Condition condition) {
  cuda_on_host::wait_until(condition);
}
VICINAL_DEVICE void global_proxy_fence() {}
VICINAL_DEVICE void barrier_init_fence() {}
VICINAL_DEVICE void async_proxy_fence() {}

VICINAL_DEVICE bool named_any(int id, int threads, bool mine) {
  cuda_on_host::Meeting& at = cuda_on_host::named.at[id];
  at.size = static_cast<unsigned>(threads);
  return cuda_on_host::meet(at, mine);
}
VICINAL_DEVICE void named_sync(int id, int threads) {
  named_any(id, threads, false);
}
VICINAL_DEVICE void named_arrive(int id, int threads) {
  cuda_on_host::Meeting& at = cuda_on_host::named.at[id];
  at.size = static_cast<unsigned>(threads);
  cuda_on_host::arrive(at, false);
}

}  // namespace vicinal
