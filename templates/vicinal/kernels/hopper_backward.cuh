// Backward on Hopper's tensor cores (sm_90a), over grids of one to three axes, of
// 16-bit tensors that the copy engine can read:
//
//   rows     what a tile of queries brings beside its channels, and the terms of its rows
//   keys     dK and dV by tiles of keys, and with them what each tile adds to dQ, in fp32
//   queries  dQ from these sums
//
// A block per multiprocessor takes one tile of 128 keys after the other, of which two warpgroups own 64 each.
// One warp, the loader, copies the tiles of queries that see them; another, the adder, brings what these get
// to memory. Where tiles of keys add in turn, the same arguments give the same bits. Where they do not,
// multiprocessors that have no more keys begin with the queries of heads that are finished.
#pragma once

#include "vicinal/hopper/backward/adder.cuh"
#include "vicinal/hopper/backward/key_group.cuh"
#include "vicinal/hopper/backward/loader.cuh"
#include "vicinal/hopper/backward/query_rows.cuh"
#include "vicinal/hopper/backward/query_sums.cuh"
#include "vicinal/ptx/dependent_launch.cuh"

namespace vicinal::hopper::backward {

constexpr int kThreads = (kGroups + 1) * kGroupThreads;

template <Variant V, class T, int HeadDim, int ValueDim, class Schedule, class Products>
VICINAL_DEVICE void keys(const LaunchArguments<typename V::Arguments>& launch) {
  static_assert(V::rank <= 3, "a tensor map has five dimensions");
  static_assert(!V::has_context && !V::has_output && !(V::has_slope && (V::rank > 1 || V::dilated)));
  static_assert(V::normalize == Normalize::softmax && !V::query_l2norm && !V::key_l2norm);
  static_assert(HeadDim % 64 == 0 && ValueDim % 64 == 0);
  using L = BackwardLayout<V, HeadDim, ValueDim, Schedule>;
  static_assert(L::kBytes + L::kAlignment <= Schedule::shared_bytes,
                "the host asks for too little shared memory");

  char* const memory = dynamic_shared();
  const u32 start = shared_address(memory), base = (start + L::kAlignment - 1) & ~(L::kAlignment - 1);
  auto& control = *reinterpret_cast<typename L::Control*>(memory + (base - start) + L::kControl);
  if (threadIdx.x == 0) {
    const auto init = [](u64& barrier, u32 arrivals) { barrier_init(shared_address(&barrier), arrivals); };
    for (int i = 0; i < kItemSlots; ++i) {
      init(control.item_full[i], 1);
      init(control.item_empty[i], 4 * kGroups + 1);
    }
    init(control.keys_full, 1);
    init(control.keys_empty, 4 * kGroups);
    for (int i = 0; i < L::kQueryStages; ++i) {
      init(control.q_full[i], 1);
      init(control.q_empty[i], 4 * kGroups + 1);
    }
    for (int i = 0; i < L::kStages; ++i) {
      init(control.d_out_full[i], 1);
      init(control.d_out_empty[i], 4 * kGroups);
    }
    barrier_init_fence();
    async_proxy_fence();
  }
  __syncthreads();
  await_last_kernel();
  let_next_kernel_start();

  // The same in all threads of a warp, and the compiler should know.
  const int group = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / kGroupThreads, 0);
  if (group == 0) {
    shrink_registers<Schedule::producer_registers>();
    const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);
    if (warp == 0) {
      Loader<V, HeadDim, ValueDim, Schedule>(launch, base, control).run();
    } else if (warp == 1) {
      Adder<V, HeadDim, ValueDim, Schedule>(launch, base, control).run();
    }
  } else {
    grow_registers<Schedule::consumer_registers>();
    KeyGroup<V, T, HeadDim, ValueDim, Schedule, Products>(launch, base, control, group - 1).run();
  }
}

// A warp takes one tile of queries after the other.
template <Variant V, class T, int HeadDim, int ValueDim, int TileQ>
VICINAL_DEVICE void rows(const LaunchArguments<typename V::Arguments>& launch) {
  let_next_kernel_start();
  const typename V::Arguments& a = launch.backward;
  const int tiles = query_boxes<V>(a).count(), warps = static_cast<int>(blockDim.x) / 32;
  const u32 items = static_cast<u32>(a.batch * a.heads) * static_cast<u32>(tiles);
#pragma unroll 1
  for (u32 item = blockIdx.x * warps + threadIdx.x / 32; item < items; item += gridDim.x * warps) {
    const int slice = static_cast<int>(item / static_cast<u32>(tiles)), heads = static_cast<int>(a.heads);
    RowsWriter<V, T, HeadDim, ValueDim, TileQ>(launch).write(slice / heads, slice % heads,
                                                             static_cast<int>(item) - slice * tiles);
  }
}

// A block of as many threads as have sums takes one tile of queries after the other. It may run before `keys`
// has ended, and then asks whether the tile's head is finished.
template <Variant V, class T, int HeadDim, int TileQ>
VICINAL_DEVICE void queries(const LaunchArguments<typename V::Arguments>& launch) {
  __shared__ u32 taken[2];
  if (launch.in_turn()) await_last_kernel();
  let_next_kernel_start();
  const typename V::Arguments& a = launch.backward;
  const int tiles = query_boxes<V>(a).count(), heads = static_cast<int>(a.heads);
  const u32 items = static_cast<u32>(a.batch * a.heads) * static_cast<u32>(tiles),
            key_tiles = static_cast<u32>(key_boxes<V>(a).count()),
            of_key_head = static_cast<u32>(a.heads / a.kv_heads) * static_cast<u32>(tiles);
  const bool first = threadIdx.x == 0;
  if (first) taken[0] = atomicAdd(launch.drawn + 1, 1);
#pragma unroll 1
  for (int turn = 0;; turn ^= 1) {
    if (first && !launch.in_turn() && taken[turn] < items)
      spin_until([&] { return load_acquire(launch.finished + taken[turn] / of_key_head) == key_tiles; });
    __syncthreads();
    const u32 item = taken[turn];
    if (item >= items) break;
    const u32 next = first ? atomicAdd(launch.drawn + 1, 1) : 0;
    const int slice = static_cast<int>(item / static_cast<u32>(tiles));
    SumsReader<V, T, HeadDim, TileQ>(launch).read(slice / heads, slice % heads,
                                                  static_cast<int>(item) - slice * tiles);
    if (first) taken[turn ^ 1] = next;
  }
  // Whatever comes behind this kernel comes behind that one too.
  await_last_kernel();
}

}  // namespace vicinal::hopper::backward
