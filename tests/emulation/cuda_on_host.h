// Enough of CUDA to run a kernel on the host, one block after the other and one thread of it at a time:
// threads are contexts that give way to each other where they wait. Included before an emitted unit.
#pragma once

#include <math.h>
#include <ucontext.h>

#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __CUDACC__
#define __device__
#define __host__
#define __forceinline__ inline
#define __global__
#define __shared__ static
#define __launch_bounds__(...)
#define __grid_constant__
#define __noinline__

namespace cuda_on_host {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};
inline Index thread_index, block_index, block_size, grid_size;

// A place where `size` threads meet; what each brings is or-ed.
struct Meeting {
  unsigned size = 0, arrived = 0, generation = 0;
  bool brought = false, result[2] = {};
};

// Where a thread goes on. swapcontext() would do everywhere, but asks the system for the mask of signals each
// time, which takes most of a test's time.
#if defined(__x86_64__)
using Place = void*;  // its stack, with the registers that a function keeps
extern "C" void vicinal_switch_stack(Place* from, Place to);
asm(R"(
  .text
  .local vicinal_switch_stack
vicinal_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
inline void switch_place(Place& from, Place& to) {
  vicinal_switch_stack(&from, to);
}
inline void begin_at(Place& place, char* stack, std::size_t size, void (*entry)()) {
  auto* top = reinterpret_cast<void**>(reinterpret_cast<std::uintptr_t>(stack + size) / 16 * 16) - 8;
  top[6] = reinterpret_cast<void*>(entry);  // behind six registers
  place = top;
}
#else
using Place = ucontext_t;
inline void switch_place(Place& from, Place& to) {
  swapcontext(&from, &to);
}
inline void begin_at(Place& place, char* stack, std::size_t size, void (*entry)()) {
  getcontext(&place);
  place.uc_stack.ss_sp = stack;
  place.uc_stack.ss_size = size;
  place.uc_link = nullptr;
  makecontext(&place, entry, 0);
}
#endif

struct Thread {
  Place place;
  std::unique_ptr<char[]> stack;
  bool done = false;
};

struct Block {
  static constexpr std::size_t kStack = 128 << 10;
  std::vector<Thread> threads;
  Place scheduler;
  unsigned running = 0;
  unsigned idle = 0;  // threads that waited in vain since each had its turn
  Meeting all;
  std::vector<Meeting> warps;
  std::vector<float> lanes;  // what each thread shows to its warp
  std::vector<unsigned> votes;
  const std::function<void()>* body = nullptr;
  void (*begin)() = nullptr;  // before a block's threads
};
inline Block block;

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "thread %u of block %u: %s\n", thread_index.x, block_index.x, what);
  std::abort();
}

inline void give_way() {
  switch_place(block.threads[block.running].place, block.scheduler);
}

template <class Condition>
void wait_until(Condition condition) {
  if (condition()) return;
  for (give_way(); !condition(); give_way()) ++block.idle;
}

// Whether the caller was the last one.
inline bool arrive(Meeting& at, bool brings) {
  at.brought = at.brought || brings;
  if (++at.arrived < at.size) return false;
  at.result[at.generation % 2] = at.brought;
  at.brought = false;
  at.arrived = 0;
  ++at.generation;
  return true;
}
inline bool meet(Meeting& at, bool brings) {
  const unsigned mine = at.generation;
  if (!arrive(at, brings)) wait_until([&] { return at.generation != mine; });
  return at.result[mine % 2];
}

inline Meeting& own_warp() {
  return block.warps[thread_index.x / 32];
}

inline void enter() {
  (*block.body)();
  block.threads[block.running].done = true;
  give_way();
}

// Backwards: the last block and thread first. What is well synchronised gives the same bits either way.
inline void run(unsigned grid, unsigned size, const std::function<void()>& body, bool backwards = false) {
  grid_size.x = grid;
  block_size.x = size;
  for (unsigned n = 0; n < grid; ++n) {
    block_index.x = backwards ? grid - 1 - n : n;
    block.body = &body;
    block.all = {.size = size};
    block.warps.assign(size / 32, {.size = 32});
    block.lanes.assign(size, 0);
    block.votes.assign(size, 0);
    block.threads.resize(size);
    for (Thread& t : block.threads) {
      if (!t.stack) t.stack = std::make_unique<char[]>(Block::kStack);
      t.done = false;
      begin_at(t.place, t.stack.get(), Block::kStack, enter);
    }
    if (block.begin != nullptr) block.begin();
    for (unsigned live = size; live > 0;) {
      live = block.idle = 0;
      for (unsigned turn = 0; turn < size; ++turn) {
        const unsigned i = backwards ? size - 1 - turn : turn;
        if (block.threads[i].done) continue;
        ++live;
        block.running = thread_index.x = i;
        switch_place(block.scheduler, block.threads[i].place);
      }
      if (live > 0 && block.idle == live) fail("all threads wait for each other");
    }
  }
}

}  // namespace cuda_on_host

#define threadIdx (cuda_on_host::thread_index)
#define blockIdx (cuda_on_host::block_index)
#define blockDim (cuda_on_host::block_size)
#define gridDim (cuda_on_host::grid_size)

inline void __syncthreads() {
  cuda_on_host::meet(cuda_on_host::block.all, false);
}
inline int __syncthreads_or(int predicate) {
  return cuda_on_host::meet(cuda_on_host::block.all, predicate != 0);
}
inline float __shfl_xor_sync(unsigned, float x, int mask) {
  using cuda_on_host::block;
  const unsigned self = threadIdx.x;
  block.lanes[self] = x;
  cuda_on_host::meet(cuda_on_host::own_warp(), false);
  const float other = block.lanes[self ^ static_cast<unsigned>(mask)];
  cuda_on_host::meet(cuda_on_host::own_warp(), false);
  return other;
}
inline unsigned __ballot_sync(unsigned, int predicate) {
  using cuda_on_host::block;
  const unsigned self = threadIdx.x;
  block.votes[self] = predicate != 0;
  cuda_on_host::meet(cuda_on_host::own_warp(), false);
  unsigned bits = 0;
  for (unsigned i = 0; i < 32; ++i) bits |= block.votes[self / 32 * 32 + i] << i;
  cuda_on_host::meet(cuda_on_host::own_warp(), false);
  return bits;
}

struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float __uint_as_float(unsigned bits) {
  return std::bit_cast<float>(bits);
}
inline float __int_as_float(int bits) {
  return std::bit_cast<float>(bits);
}
inline unsigned __float_as_uint(float x) {
  return std::bit_cast<unsigned>(x);
}
inline float __fadd_rn(float x, float y) {
  return x + y;
}
inline float __fsub_rn(float x, float y) {
  return x - y;
}
inline float __fmul_rn(float x, float y) {
  return x * y;
}
inline float __fdiv_rn(float x, float y) {
  return x / y;
}
inline float __fsqrt_rn(float x) {
  return sqrtf(x);
}
inline float rsqrtf(float x) {
  return 1 / sqrtf(x);
}
