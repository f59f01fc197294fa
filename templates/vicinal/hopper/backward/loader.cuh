// The warp of the backward pass that finds the tiles of queries which see some key of a tile, and copies what
// the groups need of them.
#pragma once

#include "vicinal/hopper/backward/layout.cuh"
#include "vicinal/hopper/boxes.cuh"

namespace vicinal::hopper::backward {

template <Variant V, int HeadDim, int ValueDim, class Schedule>
class Loader {
  using L = BackwardLayout<V, HeadDim, ValueDim, Schedule>;
  using Control = typename L::Control;
  using Rows = typename L::Rows;
  static constexpr int kRank = V::rank;
  static constexpr int kTileQ = L::kTileQ;

 public:
  VICINAL_DEVICE Loader(const LaunchArguments<typename V::Arguments>& arguments, u32 shared, Control& c)
      : launch(arguments),
        a(arguments.backward),
        queries(query_boxes<V>(arguments.backward)),
        keys(key_boxes<V>(arguments.backward)),
        base(shared),
        control(c) {}

  // By one warp.
  VICINAL_DEVICE void run() {
    const int group = static_cast<int>(a.heads / a.kv_heads);
    Place<1> full;
#pragma unroll 1
    for (Item item; draw(item); full.advance()) {
      if (lane() == 0) copy_keys(item, full);
      const int tiles = place_item(item), begin = first_of(item, tiles);
      // A head after the other, so that blocks whose items end at different tiles drift apart: those that add
      // to the same sums at once are slower.
#pragma unroll 1
      for (int h = item.kv_h * group; h < (item.kv_h + 1) * group; ++h) {
#pragma unroll 1
        for (int from = 0; from < tiles; from += 32) visit(item, h, from, tiles, begin);
      }
      if (lane() == 0) {
        leave_note({0, 0, kEnd, 0, {}});
        barrier_arrive(shared_address(&control.q_full[query.stage()]));
      }
      query.advance();
    }
  }

 private:
  // The next tile of keys that no block has taken. Neighbouring numbers are of a section's different heads,
  // so that those which add to the same gradients start one after the other; tiles go from the first on,
  // which under a causal mask has the most to do. Drawn in order, so that whoever waits for another's turn
  // knows it is at work.
  VICINAL_DEVICE bool draw(Item& item) {
    const u32 kv_heads = static_cast<u32>(a.kv_heads), slices = static_cast<u32>(a.batch) * kv_heads,
              tiles = static_cast<u32>(keys.count());
    u32 number = 0;
    if (lane() == 0) number = atomicAdd(launch.drawn, 1);
    number = __shfl_sync(~0u, number, 0);
    item.exists = number < slices * tiles;
    const Piece piece = piece_of(item.exists ? number : 0, slices, tiles, static_cast<u32>(launch.section));
    int along[kRank], at[kRank];
#pragma unroll
    for (int i = 0; i < kRank; ++i) along[i] = keys.along(i);
    place(static_cast<int>(piece.tile), along, at);
    item.tile = keys.number(at);
    item.b = static_cast<int>(piece.slice / kv_heads);
    item.kv_h = static_cast<int>(piece.slice % kv_heads);
    if (lane() == 0) {
      barrier_wait(shared_address(&control.item_empty[slot.stage()]), slot.parity() ^ 1);
      control.item[slot.stage()] = item;
      barrier_arrive(shared_address(&control.item_full[slot.stage()]));
    }
    slot.advance();
    return item.exists;
  }

  // Of a box of tiles one, by its number in the order in which they are done.
  VICINAL_DEVICE void place(int number, const int (&count)[kRank], int (&at)[kRank]) const {
    const auto slowest = [&](int axis) { return kRank == 1 || axis == static_cast<int>(launch.slowest); };
#pragma unroll
    for (int i = kRank - 1; i >= 0; --i)
      if (!slowest(i)) at[i] = take_digit(number, count[i], false);
#pragma unroll
    for (int i = 0; i < kRank; ++i)
      if (slowest(i)) at[i] = number;
  }

  VICINAL_DEVICE void copy_keys(const Item& item, const Place<1>& place) {
    const u32 full = shared_address(&control.keys_full);
    int at[kRank], token[kRank];
    keys.place(item.tile, at);
    keys.origin(at, token);
    barrier_wait(shared_address(&control.keys_empty), place.parity() ^ 1);
    barrier_expect(full, L::kKeyBytes + L::kValueBytes);
    copy_tokens<V, L::kHeadSlabs, kTileK>(a, &launch.maps.k, launch.boxes.k, a.tiles.k, launch.boxes.k_copy,
                                          token, item.kv_h, item.b, base + L::kKeys, full, kEvictLast);
    copy_tokens<V, L::kValueSlabs, kTileK>(a, &launch.maps.v, launch.boxes.v, a.tiles.k, launch.boxes.k_copy,
                                           token, item.kv_h, item.b, base + L::kValues, full, kEvictLast);
  }

  // How many tiles of queries windows let see some key of the item's: a box of them, from `first` on.
  VICINAL_DEVICE int place_item(const Item& item) {
    int at[kRank], tiles = 1;
    keys.place(item.tile, at);
#pragma unroll
    for (int i = 0; i < kRank; ++i) {
      first[i] = 0;
      count[i] = queries.along(i);
      key_begin[i] = keys.stretch(i, at[i]).first;
      key_origin[i] = keys.global(i);
      if constexpr (V::neighborhood) {
        const Axis axis = V::axis(a, i);
        const Stretch own = keys.stretch(i, at[i]);
        const int origin = queries.global(i), residue = residue_of(axis, own);
        key_begin[i] = group_position(axis, residue, own.first);
        key_origin[i] = group_position(axis, residue, keys.global(i));
        const int begin = group_position(axis, residue, origin),
                  group = axis.dilation == 1
                              ? 0
                              : (residue + axis.dilation - origin % axis.dilation) % axis.dilation;
        count[i] = 0;
        if (own.count > 0 && group < queries.local(i)) {
          const Span span = query_span(axis, own, origin, queries.local(i));
          const int skipped = (span.begin - begin) / queries.extent(i);
          first[i] = group * queries.along_group(i) + skipped;
          if (span.begin < span.end) count[i] = tile_count(span.end - begin, queries.extent(i)) - skipped;
        }
      }
      tiles *= count[i];
    }
    return tiles;
  }

  // Where the walk over so many tiles of queries begins. Along one axis, where who asks first stores, at
  // another one for every tile of keys: blocks that add to the same sums at once are slower.
  VICINAL_DEVICE int first_of(const Item& item, int tiles) const {
    if (kRank > 1 || !first_stores<V>(launch)) return 0;
    return static_cast<int>(static_cast<i64>(tiles) * item.tile / keys.count());
  }

  // Of the item's tiles of queries the next 32: a lane looks at one. By turns they go from the last to the
  // first: a window's last queries are those that tiles of keys before do not see, so that neighbouring tiles
  // of keys, begun together, come to a tile of queries one after the other, in the order of their turns.
  // Where who asks first stores they go from the `begin`-th on, in the order of tiles of keys: what is at
  // work then moves along the slowest axis together, and stays in the L2 cache (bench/cache_model.py).
  VICINAL_DEVICE void visit(const Item& item, int h, int from, int tiles, int begin) {
    const bool exists = from + lane() < tiles;
    int number = exists ? from + lane() : 0, at[kRank];
    if (first_stores<V>(launch)) {
      number += begin;
      if (number >= tiles) number -= tiles;
    } else {
      number = tiles - 1 - number;
    }
    place(number, count, at);
#pragma unroll
    for (int i = 0; i < kRank; ++i) at[i] += first[i];
    number = exists ? queries.number(at) : 0;
    const Visit own = V::has_keeps ? planned(item, h, number) : reached(item, h, number);
#pragma unroll 1
    for (u32 left = __ballot_sync(~0u, exists && own.visited); left != 0; left &= left - 1) {
      const int next = __ffs(static_cast<int>(left)) - 1;
      const u32 flags = __shfl_sync(~0u, own.partial ? kPartial : 0u, next);
      const u32 turn = __shfl_sync(~0u, own.turn, next);
      const QueryNote<kRank> note = {__shfl_sync(~0u, h, next),
                                     __shfl_sync(~0u, number, next),
                                     flags,
                                     launch.in_turn() || turn == 0 ? turn : 1,
                                     {}};
      if (lane() == 0) bring(item, note);
      query.advance();
      d_out.advance();
    }
  }

  // Whether a tile of queries meets the item's keys, whether some of their pairs are not kept, and how many
  // tiles of keys add to it before.
  struct Visit {
    bool visited, partial;
    u32 turn;
  };
  // Ranges: all tiles of keys that they touch add to the tile of queries, in the order of their numbers.
  VICINAL_DEVICE Visit reached(const Item& item, int h, int number) const {
    Visit own = {true, false, 0};
    const KeyRanges<kRank> there = all_keys<V>(a);
    TileReach<kRank> reach = {there, there};
    if constexpr (kHasReach<V>) reach = launch.reaches[tile_number(item, h, number)];
#pragma unroll
    for (int i = 0; i < kRank; ++i) {
      const int extent = keys.extent(i), begin = key_begin[i], end = begin + extent;
      const KeyRange some = reach.some.axis[i], all = reach.all.axis[i];
      own.visited = own.visited && some.begin < end && some.end > begin;
      own.partial = own.partial || begin < all.begin || end > all.end;
      const int before = (some.begin - key_origin[i]) / extent,
                last = (some.end - 1 - key_origin[i]) / extent;
      own.turn = own.turn * static_cast<u32>(last - before + 1) +
                 static_cast<u32>((begin - key_origin[i]) / extent - before);
    }
    return own;
  }
  // The planner's bits.
  VICINAL_DEVICE Visit planned(const Item& item, int h, int number) const {
    const int words = tile_count(keys.count(), 32), word = item.tile / 32;
    const u32* const some =
        a.tiles.pairs + (slice_of(a.tiles, item.b, h) * queries.count() + number) * 2 * words;
    const u32 bit = 1u << item.tile % 32;
    Visit own = {(some[word] & bit) != 0, (some[words + word] & bit) == 0, 0};
    if (!own.visited || first_stores<V>(launch)) return own;
#pragma unroll 4
    for (int i = 0; i < word; ++i) own.turn += static_cast<u32>(__popc(some[i]));
    own.turn += static_cast<u32>(__popc(some[word] & (bit - 1)));
    return own;
  }

  VICINAL_DEVICE i64 tile_number(const Item& item, int h, int tile) const {
    return (item.b * a.heads + h) * queries.count() + tile;
  }

  // The stage is free from here on.
  VICINAL_DEVICE void leave_note(const QueryNote<kRank>& note) {
    barrier_wait(shared_address(&control.q_empty[query.stage()]), query.parity() ^ 1);
    control.note[query.stage()] = note;
  }

  VICINAL_DEVICE void bring(const Item& item, QueryNote<kRank> note) {
    const u32 stage = query.stage(), q_full = shared_address(&control.q_full[stage]),
              d_out_full = shared_address(&control.d_out_full[d_out.stage()]);
    int at[kRank], token[kRank];
    queries.place(note.tile, at);
    queries.origin(at, token);
#pragma unroll
    for (int i = 0; i < kRank; ++i) {
      const int x = token[i] + queries.global(i);
      note.first[i] = group_position(V::axis(a, i), residue_of(V::axis(a, i), {x, 1}), x);
    }
    leave_note(note);
    barrier_expect(q_full, L::kQueryBytes + static_cast<u32>(sizeof(Rows)));
    copy_tokens<V, L::kHeadSlabs, kTileQ>(a, &launch.maps.q, launch.boxes.q, a.tiles.q, launch.boxes.q_copy,
                                          token, note.h, item.b, base + L::kQueries + stage * L::kQueryBytes,
                                          q_full, kEvictLast);
    copy_bytes(shared_address(&control.rows[stage]),
               static_cast<const Rows*>(launch.query_rows) + tile_number(item, note.h, note.tile),
               sizeof(Rows), q_full);
    barrier_wait(shared_address(&control.d_out_empty[d_out.stage()]), d_out.parity() ^ 1);
    barrier_expect(d_out_full, L::kDOutBytes);
    copy_tokens<V, L::kValueSlabs, kTileQ>(
        a, &launch.maps.d_out, launch.boxes.d_out, a.tiles.q, launch.boxes.q_copy, token, note.h, item.b,
        base + L::kDOut + d_out.stage() * L::kDOutBytes, d_out_full, kEvictLast);
  }

  const LaunchArguments<typename V::Arguments>& launch;
  const typename V::Arguments& a;
  const BoxGrid<V> queries, keys;
  const u32 base;
  Control& control;
  Place<kItemSlots> slot;
  Place<L::kQueryStages> query;
  Place<L::kStages> d_out;

  // Of the item, along each axis: its first key and the first key at hand, as positions of their dilation
  // group, and the tiles of queries to be looked at.
  int key_begin[kRank], key_origin[kRank], first[kRank], count[kRank];
};

}  // namespace vicinal::hopper::backward
