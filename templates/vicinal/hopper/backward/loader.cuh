// The warp of the backward pass that finds the tiles of queries which see some key of a tile, and copies what
// the groups need of them.
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
  static constexpr int kRank = V::rank;
  static constexpr int kTileQ = L::kTileQ, kMine = kTileQ / 32;  // queries of a lane

 public:
  VICINAL_DEVICE Loader(const LaunchArguments<typename V::Arguments>& arguments, u32 shared, Control& c)
      : launch(arguments), a(arguments.backward), base(shared), control(c) {}

  // By one warp.
  VICINAL_DEVICE void run() {
    const int group = static_cast<int>(a.heads / a.kv_heads);
    const BoxGrid<kRank> queries = query_boxes<V>(a), key_tiles = key_boxes<V>(a);
    Place<1> keys;
#pragma unroll 1
    for (Item item; draw(item); keys.advance()) {
      key_tiles.place(item.tile, tile);
      if (lane() == 0) copy_keys(item, keys);
      // Boxes of queries that windows let see some key.
      int first[kRank], last[kRank];
      bool any = true;
#pragma unroll
      for (int i = 0; i < kRank; ++i) {
        first[i] = 0;
        last[i] = queries.along(i);
        if constexpr (V::neighborhood) {
          const int origin = static_cast<int>(a.q_axis[i].origin), begin = tile[i] * key_tiles.extent(i);
          const Span reach = query_span(V::axis(a, i),
                                        {static_cast<int>(a.k_axis[i].origin) + begin,
                                         smaller(key_tiles.extent(i), key_tiles.local(i) - begin)},
                                        origin, queries.local(i));
          first[i] = (reach.begin - origin) / queries.extent(i);
          last[i] = smaller(last[i], tile_count(reach.end - origin, queries.extent(i)));
        }
        any = any && first[i] < last[i];
      }
#pragma unroll 1
      for (int h = item.kv_h * group; any && h < (item.kv_h + 1) * group; ++h) {
        int at[kRank];
#pragma unroll
        for (int i = 0; i < kRank; ++i) at[i] = first[i];
#pragma unroll 1
        for (bool more = true; more;) {
          bring(item, h, at);
          bool carry = true;
#pragma unroll
          for (int i = kRank - 1; i >= 0; --i) {
            if (!carry) continue;
            carry = ++at[i] == last[i];
            if (carry) at[i] = first[i];
          }
          more = !carry;
        }
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
  // The next tile of keys that no block has taken. Neighbouring numbers are of different heads, so that those
  // which add to the same gradients start one after the other; tiles go from the first on, which under a
  // causal mask has the most to do. Drawn in order, so that whoever waits for another's turn knows it is at
  // work.
  VICINAL_DEVICE bool draw(Item& item) {
    const u32 kv_heads = static_cast<u32>(a.kv_heads), slices = static_cast<u32>(a.batch) * kv_heads;
    u32 number = 0;
    if (lane() == 0) number = atomicAdd(launch.drawn, 1);
    number = __shfl_sync(~0u, number, 0);
    const u32 slice = number % slices;
    item.exists = number < slices * static_cast<u32>(key_boxes<V>(a).count());
    item.tile = static_cast<int>(number / slices);
    item.b = static_cast<int>(slice / kv_heads);
    item.kv_h = static_cast<int>(slice % kv_heads);
    if (lane() == 0) {
      barrier_wait(shared_address(&control.item_empty[slot.stage()]), slot.parity() ^ 1);
      control.item[slot.stage()] = item;
      barrier_arrive(shared_address(&control.item_full[slot.stage()]));
    }
    slot.advance();
    return item.exists;
  }

  VICINAL_DEVICE void copy_keys(const Item& item, const Place<1>& keys) {
    const u32 full = shared_address(&control.keys_full);
    barrier_wait(shared_address(&control.keys_empty), keys.parity() ^ 1);
    barrier_expect(full, L::kKeyBytes + L::kValueBytes);
    int token[kRank];
#pragma unroll
    for (int i = 0; i < kRank; ++i) token[i] = tile[i] * static_cast<int>(a.tiles.k[i]);
    copy<L::kHeadSlabs, kTileK>(&launch.maps.k, launch.steps.k, token, item.kv_h, item.b, base + L::kKeys,
                                full);
    copy<L::kValueSlabs, kTileK>(&launch.maps.v, launch.steps.v, token, item.kv_h, item.b, base + L::kValues,
                                 full);
  }

  template <int Slabs, int Tokens>
  VICINAL_DEVICE static void copy(const TensorMap* map, const HeadSteps& steps, const int (&token)[kRank],
                                  int h, int b, u32 to, u32 full) {
#pragma unroll
    for (int slab = 0; slab < Slabs; ++slab)
      copy_box(to + slab * Tokens * kSlabRowBytes, map,
               box_origin<kRank>(steps, slab * kSlabChannels, token, h, b), full, kEvictLast);
  }

  // A tile of queries, unless they keep no key of the item's.
  VICINAL_DEVICE void bring(const Item& item, int h, const int (&at)[kRank]) {
    const BoxGrid<kRank> queries = query_boxes<V>(a);
    KeyRanges<kRank> reach, sure = all_keys<V>(a);
#pragma unroll
    for (int i = 0; i < kRank; ++i) reach.axis[i] = {2147483647, 0};
      // Before the stage is free: who reads of this slot has read of the stages since.
#pragma unroll
    for (int n = 0; n < kMine; ++n) {
      const int r = lane() + 32 * n;
      Token<kRank> token;
      const bool exists = queries.token(at, r, token);
      const Query<kRank> q = query_of<V>(a, item.b, h, token);
      float exponent = -infinity(), term = 0.0f;
      if (exists) {
        const float lse = static_cast<const float*>(
            a.lse.data)[q.b * a.lse.batch + q.h * a.lse.head + token_offset(a.lse, token)];
        // Rows that keep nothing, and those whose sink is all, have no gradients.
        if (lse != -infinity()) exponent = ((V::has_core ? 0.0f : V::shift(a, q)) - lse) * kLog2E;
        i64 row = q.b * a.heads + q.h;
#pragma unroll
        for (int i = 0; i < kRank; ++i) row = row * a.q_axis[i].local + token.local[i];
        term = a.row_terms[row];
      }
      control.exponent[place.slot()][r] = exponent;
      control.term[place.slot()][r] = term;
      if constexpr (L::kLimited) {
        const KeyRanges<kRank> keys = key_limits<V>(a, q);
        control.limits[place.slot()][r] = keys;
        bool some = exists;
#pragma unroll
        for (int i = 0; i < kRank; ++i) {
          sure.axis[i] = {larger(sure.axis[i].begin, keys.axis[i].begin),
                          smaller(sure.axis[i].end, keys.axis[i].end)};
          some = some && keys.axis[i].begin < keys.axis[i].end;
        }
        if (!some) continue;
#pragma unroll
        for (int i = 0; i < kRank; ++i)
          reach.axis[i] = {smaller(reach.axis[i].begin, keys.axis[i].begin),
                           larger(reach.axis[i].end, keys.axis[i].end)};
      }
    }
    bool partial = V::has_keeps;
    u32 turn = 0;
#pragma unroll
    for (int i = 0; i < kRank; ++i) {
      const int origin = static_cast<int>(a.k_axis[i].origin), extent = static_cast<int>(a.tiles.k[i]);
      const int begin = origin + tile[i] * extent, end = begin + extent;
      KeyRange& inside = sure.axis[i];
      KeyRange range = inside;
      if constexpr (L::kLimited) {
        range = {__reduce_min_sync(~0u, reach.axis[i].begin), __reduce_max_sync(~0u, reach.axis[i].end)};
        if (range.end <= begin || range.begin >= end) return;
        inside = {__reduce_max_sync(~0u, inside.begin), __reduce_min_sync(~0u, inside.end)};
      }
      partial = partial || begin < inside.begin || end > inside.end;
      // All tiles of keys that the ranges of a tile of queries touch add to it, in the order of their
      // numbers.
      const int first = (range.begin - origin) / extent, last = (range.end - 1 - origin) / extent;
      turn = turn * static_cast<u32>(last - first + 1) + static_cast<u32>(tile[i] - first);
    }
    leave_note({h, queries.number(at), partial ? kPartial : 0u, turn});
    __syncwarp();
    if (lane() == 0) copy_queries(item, h, at);
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

  VICINAL_DEVICE void copy_queries(const Item& item, int h, const int (&at)[kRank]) {
    const u32 stage = place.stage(), q_full = shared_address(&control.q_full[stage]),
              d_out_full = shared_address(&control.d_out_full[stage]);
    int token[kRank];
#pragma unroll
    for (int i = 0; i < kRank; ++i) token[i] = at[i] * static_cast<int>(a.tiles.q[i]);
    barrier_expect(q_full, L::kQueryBytes);
    copy<L::kHeadSlabs, kTileQ>(&launch.maps.q, launch.steps.q, token, h, item.b,
                                base + L::kQueries + stage * L::kQueryBytes, q_full);
    barrier_wait(shared_address(&control.d_out_empty[stage]), place.parity() ^ 1);
    barrier_expect(d_out_full, L::kDOutBytes);
    copy<L::kValueSlabs, kTileQ>(&launch.maps.d_out, launch.steps.d_out, token, h, item.b,
                                 base + L::kDOut + stage * L::kDOutBytes, d_out_full);
  }

  const LaunchArguments<typename V::Arguments>& launch;
  const typename V::Arguments& a;
  const u32 base;
  Control& control;
  Place<kItemSlots> slot;
  Place<L::kStages> place;
  int tile[kRank];  // of keys, its place
};

}  // namespace vicinal::hopper::backward
