// The warps of the backward pass that do not compute: the loader finds the tiles of queries that see some key
// of a tile and copies what the groups need of them; the adder brings the groups' sums to memory.
#pragma once

#include "vicinal/hopper/backward/layout.cuh"
#include "vicinal/hopper/boxes.cuh"
#include "vicinal/hopper/key_limits.cuh"
#include "vicinal/tokens.cuh"

namespace vicinal::hopper::backward {

template <Variant V, int HeadDim, int ValueDim, class Schedule>
class Loader {
  using L = BackwardLayout<V, HeadDim, ValueDim, Schedule>;
  using Control = typename L::Control;
  static constexpr int kTileQ = L::kTileQ, kMine = kTileQ / 32;  // queries of a lane

 public:
  VICINAL_DEVICE Loader(const LaunchArguments<typename V::Arguments>& arguments, u32 shared, Control& c)
      : launch(arguments), a(arguments.backward), base(shared), control(c) {}

  // By one warp.
  VICINAL_DEVICE void run() {
    const int group = static_cast<int>(a.heads / a.kv_heads),
              tiles = tile_count(static_cast<int>(a.q_axis[0].local), kTileQ);
    Items<V> items(a);
    Place<1> keys;
#pragma unroll 1
    for (Item item; items.next(item); keys.advance()) {
      if (lane() == 0) copy_keys(item, keys);
      int first = 0, last = tiles;
      if constexpr (V::neighborhood) {
        const int origin = static_cast<int>(a.q_axis[0].origin);
        const int begin = item.tile * kTileK, local = static_cast<int>(a.k_axis[0].local);
        const Span reach = query_span(
            V::axis(a, 0), {static_cast<int>(a.k_axis[0].origin) + begin, smaller(kTileK, local - begin)},
            origin, static_cast<int>(a.q_axis[0].local));
        first = (reach.begin - origin) / kTileQ;
        last = smaller(tiles, tile_count(reach.end - origin, kTileQ));
      }
#pragma unroll 1
      for (int h = item.kv_h * group; h < (item.kv_h + 1) * group; ++h) {
#pragma unroll 1
        for (int tile = first; tile < last; ++tile) bring(item, h, tile);
      }
      leave_note({0, 0, kEnd, 0});
      if (lane() == 0) {
        barrier_arrive(shared_address(&control.q_full[place.stage()]));
        barrier_wait(shared_address(&control.d_out_empty[place.stage()]), place.parity() ^ 1);
        barrier_arrive(shared_address(&control.d_out_full[place.stage()]));
      }
      place.advance();
    }
  }

 private:
  VICINAL_DEVICE void copy_keys(const Item& item, const Place<1>& keys) {
    const u32 full = shared_address(&control.keys_full);
    barrier_wait(shared_address(&control.keys_empty), keys.parity() ^ 1);
    barrier_expect(full, L::kKeyBytes + L::kValueBytes);
    const int token = item.tile * kTileK;
#pragma unroll
    for (int slab = 0; slab < L::kHeadSlabs; ++slab)
      copy_box(base + L::kKeys + slab * kTileK * kSlabRowBytes, &launch.maps.k,
               {slab * kSlabChannels, token, 0, item.kv_h, item.b}, full, kEvictLast);
#pragma unroll
    for (int slab = 0; slab < L::kValueSlabs; ++slab)
      copy_box(base + L::kValues + slab * kTileK * kSlabRowBytes, &launch.maps.v,
               {slab * kSlabChannels, token, 0, item.kv_h, item.b}, full, kEvictLast);
  }

  // A tile of queries, unless they keep no key of the item's.
  VICINAL_DEVICE void bring(const Item& item, int h, int tile) {
    float exponent[kMine], term[kMine];
    KeyRange keys[kMine];
    const int k_origin = static_cast<int>(a.k_axis[0].origin);
    const int begin = k_origin + item.tile * kTileK, end = begin + kTileK;
    KeyRange reach = {2147483647, 0}, sure = all_keys<V>(a).axis[0];
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const int local = tile * kTileQ + lane() + 32 * i, count = static_cast<int>(a.q_axis[0].local);
      const Query<1> q = query_of<V>(a, item.b, h, Token<1>{{smaller(local, count - 1)}});
      keys[i] = L::kLimited ? key_limits<V>(a, q).axis[0] : sure;
      exponent[i] = -infinity();
      term[i] = 0.0f;
      if (local >= count) continue;
      const float lse =
          static_cast<const float*>(a.lse.data)[q.b * a.lse.batch + q.h * a.lse.head + local * a.lse.axis[0]];
      // Rows that keep nothing, and those whose sink is all, have no gradients.
      if (lse != -infinity()) exponent[i] = ((V::has_core ? 0.0f : V::shift(a, q)) - lse) * kLog2E;
      term[i] = a.row_terms[(q.b * a.heads + q.h) * count + local];
      if (keys[i].begin >= keys[i].end) continue;
      reach = {smaller(reach.begin, keys[i].begin), larger(reach.end, keys[i].end)};
    }
    if constexpr (L::kLimited) {
      reach.begin = __reduce_min_sync(~0u, reach.begin);
      reach.end = __reduce_max_sync(~0u, reach.end);
      if (reach.end <= begin || reach.begin >= end) return;
#pragma unroll
      for (int i = 0; i < kMine; ++i)
        sure = {larger(sure.begin, keys[i].begin), smaller(sure.end, keys[i].end)};
      sure.begin = __reduce_max_sync(~0u, sure.begin);
      sure.end = __reduce_min_sync(~0u, sure.end);
    } else {
      reach.begin = sure.begin;
    }
    const bool partial = V::has_keeps || begin < sure.begin || end > sure.end;
    // Every tile of keys between the first and the last that a tile of queries reaches adds to it.
    leave_note(
        {h, tile, partial ? kPartial : 0u, static_cast<u32>(item.tile - (reach.begin - k_origin) / kTileK)});
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const int r = lane() + 32 * i;
      control.exponent[place.stage()][r] = exponent[i];
      control.term[place.stage()][r] = term[i];
      if constexpr (L::kLimited) control.limits[place.stage()][r] = keys[i];
    }
    __syncwarp();
    if (lane() == 0) copy_queries(item, h, tile);
    place.advance();
  }

  // The stage is free from here on.
  VICINAL_DEVICE void leave_note(const QueryNote& note) {
    if (lane() == 0) {
      barrier_wait(shared_address(&control.q_empty[place.stage()]), place.parity() ^ 1);
      control.note[place.slot()] = note;
    }
    __syncwarp();
  }

  VICINAL_DEVICE void copy_queries(const Item& item, int h, int tile) {
    const u32 stage = place.stage(), q_full = shared_address(&control.q_full[stage]),
              d_out_full = shared_address(&control.d_out_full[stage]);
    const int token = tile * kTileQ;
    barrier_expect(q_full, L::kQueryBytes);
#pragma unroll
    for (int slab = 0; slab < L::kHeadSlabs; ++slab)
      copy_box(base + L::kQueries + stage * L::kQueryBytes + slab * kTileQ * kSlabRowBytes, &launch.maps.q,
               {slab * kSlabChannels, token, 0, h, item.b}, q_full, kEvictLast);
    barrier_wait(shared_address(&control.d_out_empty[stage]), place.parity() ^ 1);
    barrier_expect(d_out_full, L::kDOutBytes);
#pragma unroll
    for (int slab = 0; slab < L::kValueSlabs; ++slab)
      copy_box(base + L::kDOut + stage * L::kDOutBytes + slab * kTileQ * kSlabRowBytes, &launch.maps.d_out,
               {slab * kSlabChannels, token, 0, h, item.b}, d_out_full, kEvictLast);
  }

  const LaunchArguments<typename V::Arguments>& launch;
  const typename V::Arguments& a;
  const u32 base;
  Control& control;
  Place<L::kStages> place;
};

template <Variant V, int HeadDim, int ValueDim, class Schedule>
class Adder {
  using L = BackwardLayout<V, HeadDim, ValueDim, Schedule>;
  using Control = typename L::Control;
  using Sums = typename L::Sums;

 public:
  VICINAL_DEVICE Adder(const LaunchArguments<typename V::Arguments>& arguments, u32 shared, Control& c)
      : launch(arguments), a(arguments.backward), base(shared), control(c) {}

  // By one warp.
  VICINAL_DEVICE void run() {
#pragma unroll
    for (int group = 0; group < kGroups; ++group) named_arrive(sums_empty(group), kAddingThreads);
    const int tiles = tile_count(static_cast<int>(a.q_axis[0].local), L::kTileQ);
    Items<V> items(a);
    Place<L::kStages> place;
#pragma unroll 1
    for (Item item; items.next(item);) {
#pragma unroll 1
      for (bool more = true; more; place.advance()) {
        barrier_wait(shared_address(&control.q_full[place.stage()]), place.parity());
        const QueryNote note = control.note[place.slot()];
        __syncwarp();
        if (lane() == 0) barrier_arrive(shared_address(&control.q_empty[place.stage()]));
        more = !(note.flags & kEnd);
        if (more) add((static_cast<i64>(item.b) * a.heads + note.h) * tiles + note.tile, note.turn);
      }
    }
    if (lane() == 0) store_wait();
  }

 private:
  VICINAL_DEVICE void add(i64 number, u32 turn) {
    u32* const turns = launch.turns == nullptr ? nullptr : launch.turns + number;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      named_sync(sums_full(group), kAddingThreads);
      if (lane() != 0) continue;
      if (turns != nullptr && group == 0) wait_for(turns, turn);
      add_floats(launch.query_sums + number * Sums::kFloats + group * Sums::kGroupFloats,
                 base + L::kSums + group * Sums::kGroupFloats * 4, Sums::kGroupFloats * 4);
      store_commit();
    }
    if (lane() == 0) store_wait_read();
    __syncwarp();
#pragma unroll
    for (int group = 0; group < kGroups; ++group) named_arrive(sums_empty(group), kAddingThreads);
    if (lane() == 0 && turns != nullptr) {
      store_wait();
      global_proxy_fence();
      store_release(turns, turn + 1);
    }
  }

  // Who adds before has taken its item before, and so is at work.
  VICINAL_DEVICE static void wait_for(const u32* turns, u32 turn) {
    spin_until([&] { return load_acquire(turns) == turn; });
    global_proxy_fence();
  }

  const LaunchArguments<typename V::Arguments>& launch;
  const typename V::Arguments& a;
  const u32 base;
  Control& control;
};

}  // namespace vicinal::hopper::backward
