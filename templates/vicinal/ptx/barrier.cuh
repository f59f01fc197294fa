// Barriers: those in shared memory (mbarrier), which also count the bytes of bulk copies, and the block's
// numbered ones (bar). One instruction per function.
#pragma once

#include "vicinal/platform.cuh"

namespace vicinal {

// Addresses of shared memory are 32 bits wide.
VICINAL_DEVICE u32 shared_address(const void* pointer) {
  return static_cast<u32>(__cvta_generic_to_shared(pointer));
}

// What a block asks for when it is launched.
VICINAL_DEVICE char* dynamic_shared() {
  extern __shared__ char memory[];
  return memory;
}

VICINAL_DEVICE void barrier_init(u32 barrier, u32 arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
VICINAL_DEVICE void barrier_arrive(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives, and has the phase wait for so many bytes of bulk copies too.
VICINAL_DEVICE void barrier_expect(u32 barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
// Until the phase of that parity is complete.
VICINAL_DEVICE void barrier_wait(u32 barrier, u32 parity) {
  asm volatile(
      "{\n"
      ".reg .pred complete;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 complete, [%0], %1;\n"
      "@!complete bra again;\n"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
// What was initialised becomes visible to the copy engine.
VICINAL_DEVICE void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

VICINAL_DEVICE void named_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
VICINAL_DEVICE void named_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// named_sync that tells whether any thread says so.
VICINAL_DEVICE bool named_any(int id, int threads, bool mine) {
  u32 any;
  asm volatile(
      "{\n"
      ".reg .pred mine, any;\n"
      "setp.ne.u32 mine, %3, 0;\n"
      "bar.red.or.pred any, %1, %2, mine;\n"
      "selp.u32 %0, 1, 0, any;\n"
      "}"
      : "=r"(any)
      : "r"(id), "r"(threads), "r"(static_cast<u32>(mine))
      : "memory");
  return any != 0;
}

// Between blocks: what came before the store is seen by whoever loads what it stored.
VICINAL_DEVICE u32 load_acquire(const u32* from) {
  u32 x;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(x) : "l"(from) : "memory");
  return x;
}
VICINAL_DEVICE void store_release(u32* to, u32 x) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(x) : "memory");
}
VICINAL_DEVICE void add_release(u32* to, u32 x) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(to), "r"(x) : "memory");
}

// Ordinary writes to shared memory become visible to the tensor cores and the copy engine.
VICINAL_DEVICE void async_proxy_fence() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

template <class Condition>
VICINAL_DEVICE void spin_until(Condition condition) {
  while (!condition()) __nanosleep(20);
}

// Bulk copies to global memory and ordinary accesses to it are in order.
VICINAL_DEVICE void global_proxy_fence() {
  asm volatile("fence.proxy.async.global;" ::: "memory");
}

}  // namespace vicinal
