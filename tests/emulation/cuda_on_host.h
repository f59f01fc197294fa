// Enough of CUDA to run a kernel on the host, one block after the other and one thread of it at a time:
// threads are contexts that give way to each other where they wait. Included before an emitted unit.
#pragma once

#include <math.h>
#include <ucontext.h>

#include <bit>
#include <cstdint>
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

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool done = false;
};

struct Block {
  static constexpr std::size_t kStack = 128 << 10;
  std::vector<Thread> threads;
  ucontext_t scheduler;
  unsigned running = 0;
  Meeting all;
  std::vector<Meeting> warps;
  std::vector<float> lanes;  // what each thread shows to its warp
  std::vector<unsigned> votes;
  const std::function<void()>* body = nullptr;
};
inline Block block;

inline void give_way() {
  Thread& self = block.threads[block.running];
  swapcontext(&self.context, &block.scheduler);
}

inline bool meet(Meeting& at, bool brings) {
  const unsigned mine = at.generation;
  at.brought = at.brought || brings;
  if (++at.arrived == at.size) {
    at.result[mine % 2] = at.brought;
    at.brought = false;
    at.arrived = 0;
    ++at.generation;
  } else {
    while (at.generation == mine) give_way();
  }
  return at.result[mine % 2];
}

inline Meeting& own_warp() {
  return block.warps[thread_index.x / 32];
}

inline void enter() {
  (*block.body)();
  block.threads[block.running].done = true;
  swapcontext(&block.threads[block.running].context, &block.scheduler);
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
      getcontext(&t.context);
      t.context.uc_stack.ss_sp = t.stack.get();
      t.context.uc_stack.ss_size = Block::kStack;
      t.context.uc_link = nullptr;
      makecontext(&t.context, enter, 0);
    }
    for (bool any = true; any;) {
      any = false;
      for (unsigned turn = 0; turn < size; ++turn) {
        const unsigned i = backwards ? size - 1 - turn : turn;
        if (block.threads[i].done) continue;
        any = true;
        block.running = thread_index.x = i;
        swapcontext(&block.scheduler, &block.threads[i].context);
      }
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
