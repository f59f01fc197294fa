// Backward on Hopper's tensor cores (sm_90a), over grids of one to three axes, of
// 16-bit tensors that the copy engine can read:
//
//   keys     dK and dV by tiles of keys, and with them what each tile adds to dQ, in fp32
//   queries  dQ from these sums
//
// A block per multiprocessor takes one tile of 128 keys after the other, of which two warpgroups own 64 each.
// One warp, the loader, copies the tiles of queries that see them; another, the adder, brings what these get
// to memory. Where tiles of keys add in turn, the same arguments give the same bits.
#pragma once

#include "vicinal/hopper/backward/adder.cuh"
#include "vicinal/hopper/backward/key_group.cuh"
#include "vicinal/hopper/backward/loader.cuh"

namespace vicinal::hopper::backward {

constexpr int kThreads = (kGroups + 1) * kGroupThreads;

template <Variant V, class T, int HeadDim, int ValueDim, class Schedule, class Products>
VICINAL_DEVICE void keys(const LaunchArguments<typename V::Arguments>& launch) {
  static_assert(V::rank <= 3, "a tensor map has five dimensions");
  static_assert(!V::dilated && !V::has_context && !V::has_output && !(V::has_slope && V::rank > 1));
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
    init(control.keys_empty, kGroups);
    for (int i = 0; i < L::kStages; ++i) {
      init(control.q_full[i], 1);
      init(control.d_out_full[i], 1);
      init(control.q_empty[i], 4 * kGroups + 1);
      init(control.d_out_empty[i], 4 * kGroups);
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
      Loader<V, HeadDim, ValueDim, Schedule>(launch, base, control).run();
    } else if (warp == 1) {
      Adder<V, HeadDim, ValueDim, Schedule>(launch, base, control).run();
    }
  } else {
    grow_registers<Schedule::consumer_registers>();
    KeyGroup<V, T, HeadDim, ValueDim, Schedule, Products>(launch, base, control, group - 1).run();
  }
}

// A block of as many threads as have sums takes one tile of queries after the other.
template <Variant V, class T, int HeadDim, int TileQ>
VICINAL_DEVICE void queries(const LaunchArguments<typename V::Arguments>& launch) {
  using Sums = QuerySums<TileQ, HeadDim>;
  const typename V::Arguments& a = launch.backward;
  const BoxGrid<V::rank> boxes = query_boxes<V>(a);
  const int tiles = boxes.count();
  const u32 items = static_cast<u32>(a.batch * a.heads) * static_cast<u32>(tiles);
  const int thread = static_cast<int>(threadIdx.x), group = thread / kGroupThreads,
            first_row = (Sums::kSplitsChannels ? 0 : group * kGroupRows) + thread / 32 % 4 * 16 + lane() / 4,
            first_channel = (Sums::kSplitsChannels ? group * Sums::kColumns : 0) + lane() % 4 * 2;
#pragma unroll 1
  for (u32 item = blockIdx.x; item < items; item += gridDim.x) {
    const int slice = static_cast<int>(item / static_cast<u32>(tiles)),
              tile = static_cast<int>(item) - slice * tiles;
    int place[V::rank];
    boxes.place(tile, place);
    Query<V::rank> q = {};
    q.b = slice / static_cast<int>(a.heads);
    q.h = slice % static_cast<int>(a.heads);
    q.kv_h = q.h / static_cast<int>(a.heads / a.kv_heads);
    const float factor = dot_factor<V>(a, q);
    const auto* from =
        reinterpret_cast<const float4*>(launch.query_sums + static_cast<i64>(item) * Sums::kFloats +
                                        group * Sums::kGroupFloats) +
        thread % kGroupThreads;
    T* rows[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      Token<V::rank> token;
      const bool exists = boxes.token(place, first_row + 8 * r, token);
      rows[r] = exists ? static_cast<T*>(a.d_q.data) + q.b * a.d_q.batch + q.h * a.d_q.head +
                             token_offset(a.d_q, token) + first_channel * a.d_q.dim
                       : nullptr;
    }
    float check = 0.0f;  // NaN once anything is not finite
#pragma unroll 4
    for (int n = 0; n < Sums::kPerThread / 4; ++n) {
      const float4 four = from[n * kGroupThreads];
      const float sums[2][2] = {{four.x, four.y}, {four.z, four.w}};
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if (rows[r] == nullptr) continue;
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          check = fmaf(sums[r][e], 0.0f, check);
          rows[r][(8 * n + e) * a.d_q.dim] = from_float<T>(sums[r][e] * factor);
        }
      }
    }
    if (check != 0.0f) *launch.poisoned = 1;
  }
}

}  // namespace vicinal::hopper::backward
