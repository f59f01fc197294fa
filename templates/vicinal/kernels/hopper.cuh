// The Hopper kernel: attention at the rate of the tensor cores (sm_90a), over grids of one to three axes, of
// 16-bit tensors that the copy engine can read.
//
// A block per multiprocessor stays and takes one tile of queries after the other. One warp, the scheduler,
// says which; another, the producer, copies boxes of queries, keys and values into rings in shared memory;
// two or three consumer warpgroups own 64 queries each and compute everything for them. Rings are guarded by
// barriers: `full` when the bytes are there, `empty` when every group is done with them. The scheme is
// FlashAttention-3's (Shah et al., 2024).
#pragma once

#include "vicinal/hopper/consumer.cuh"
#include "vicinal/hopper/producer.cuh"
#include "vicinal/hopper/scheduler.cuh"

namespace vicinal::hopper {

template <Variant V, class T, int HeadDim, int ValueDim, class Schedule, class Products>
VICINAL_DEVICE void forward(const LaunchArguments<typename V::Arguments>& launch) {
  static_assert(V::rank <= 3, "a tensor map has five dimensions");
  static_assert(!(V::has_limits || V::has_slope) || (V::rank == 1 && !V::dilated));
  static_assert(V::normalize == Normalize::softmax && !V::query_l2norm && !V::key_l2norm);
  static_assert(HeadDim % 8 == 0 && HeadDim >= 8 && HeadDim <= 256);
  static_assert(ValueDim % 8 == 0 && ValueDim >= 8 && ValueDim <= 256);
  static_assert(Schedule::tile_q % kGroupRows == 0 && Schedule::tile_k % 16 == 0);
  using L = Layout<V, HeadDim, ValueDim, Schedule>;
  static_assert(L::kBytes + L::kAlignment <= Schedule::shared_bytes,
                "the host asks for too little shared memory");

  char* const memory = dynamic_shared();
  const u32 start = shared_address(memory), base = (start + L::kAlignment - 1) & ~(L::kAlignment - 1);
  auto& control = *reinterpret_cast<typename L::Control*>(memory + (base - start) + L::kControl);
  if (threadIdx.x == 0) {
    const auto init = [](u64& barrier, u32 arrivals) { barrier_init(shared_address(&barrier), arrivals); };
    init(control.q_full, 1);
    init(control.q_empty, L::kOutputApart ? 4 * L::kGroups : L::kGroups);
    for (int i = 0; i < L::kStages; ++i) {
      init(control.k_full[i], V::has_columns ? 2 : 1);
      init(control.v_full[i], 1);
      init(control.k_empty[i], 4 * L::kGroups);
      init(control.v_empty[i], 4 * L::kGroups);
    }
    for (int i = 0; i < kWorkSlots; ++i) {
      init(control.work_full[i], 1);
      init(control.work_empty[i], 4 * L::kGroups + 1);
    }
    barrier_init_fence();
    async_proxy_fence();
  }
  __syncthreads();

  // The same in all threads of a warp, and the compiler should know.
  const int group = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / kGroupThreads, 0);
  if (group == 0) {
    shrink_registers<Schedule::producer_registers>();
    const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);
    if (warp == 0) {
      Producer<V, HeadDim, ValueDim, Schedule>(launch, base, control).run();
    } else if (warp == 1) {
      Scheduler<V, HeadDim, ValueDim, Schedule>(launch, control).run();
    }
  } else {
    grow_registers<Schedule::consumer_registers>();
    Consumer<V, T, HeadDim, ValueDim, Schedule, Products>(launch, base, control, group - 1).run();
  }
}

}  // namespace vicinal::hopper
