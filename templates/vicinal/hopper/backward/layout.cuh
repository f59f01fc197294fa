// Where things lie in the shared memory of the Hopper kernel of the backward pass, and how its work goes on.
#pragma once

#include "vicinal/hopper/backward/contract.cuh"
#include "vicinal/hopper/layout.cuh"
#include "vicinal/online_softmax.cuh"

namespace vicinal::hopper::backward {

// A tile of queries, beside its stage in the ring.
template <int Rank>
struct QueryNote {
  int h, tile;
  u32 flags;
  u32 turn;  // tiles of keys that add to its gradient before this one; at most 1 where nobody waits for more
  int first[Rank];  // its first query along each axis, as a position of its dilation group
};
constexpr u32 kEnd = 8;  // no tile: the item is done

constexpr int kItemSlots = 2;

// A tile of keys and the heads that share it.
struct Item {
  int exists;  // 0: there is no more
  int b, kv_h, tile;
};

template <class V, int HeadDim, int ValueDim, class Schedule>
struct BackwardLayout {
  // Queries stay a step longer than their gradients of out: until they are in the gradients of keys.
  static constexpr int kTileQ = Schedule::tile_q, kStages = 2, kQueryStages = 3;
  static constexpr int kHeadSlabs = slabs(HeadDim), kValueSlabs = slabs(ValueDim);
  static constexpr int kQueryBytes = kTileQ * kHeadSlabs * kSlabRowBytes;
  static constexpr int kDOutBytes = kTileQ * kValueSlabs * kSlabRowBytes;
  static constexpr int kKeyBytes = kTileK * kHeadSlabs * kSlabRowBytes;
  static constexpr int kValueBytes = kTileK * kValueSlabs * kSlabRowBytes;
  static constexpr int kScoreBytes = kTileQ * kGroups * kSlabRowBytes;  // gradients of a tile's scores
  using Sums = QuerySums<kTileQ, HeadDim>;
  using Rows = QueryRows<V, kTileQ>;

  static constexpr int kKeys = 0, kValues = kKeys + kKeyBytes;
  static constexpr int kQueries = kValues + kValueBytes, kDOut = kQueries + kQueryStages * kQueryBytes;
  static constexpr int kScores = kDOut + kStages * kDOutBytes;
  static constexpr int kSums = kScores + kStages * kScoreBytes;
  static constexpr int kControl = kSums + Sums::kFloats * 4;

  // Whether windows alone say which pairs of a tile are kept: the queries that see a key are neighbours along
  // every axis.
  static constexpr bool kSeen = V::neighborhood && !V::has_limits;

  struct Control {
    Rows rows[kQueryStages];
    KeyRanges<V::rank> seen[kSeen ? kTileK : 1];  // by key of the item: the queries that see it
    u64 item_full[kItemSlots], item_empty[kItemSlots], keys_full, keys_empty;
    u64 q_full[kQueryStages], q_empty[kQueryStages], d_out_full[kStages], d_out_empty[kStages];
    Item item[kItemSlots];
    QueryNote<V::rank> note[kQueryStages];
  };

  static constexpr int kAlignment = 1024;
  static constexpr int kBytes = kControl + static_cast<int>(sizeof(Control));
};

// What the loader has taken for the block. By every warp, which so has read it.
template <class Control>
VICINAL_DEVICE Item next_item(Control& control, Place<kItemSlots>& slot) {
  barrier_wait(shared_address(&control.item_full[slot.stage()]), slot.parity());
  const Item item = control.item[slot.stage()];
  release(control.item_empty[slot.stage()]);
  slot.advance();
  return item;
}

// Numbered barriers; 0 is the block's own.
constexpr int kGroupsBarrier = 1;
VICINAL_DEVICE constexpr int sums_full(int group) {
  return 2 + group;
}
VICINAL_DEVICE constexpr int sums_empty(int group) {
  return 4 + group;
}
VICINAL_DEVICE constexpr int group_barrier(int group) {
  return 6 + group;
}
// A group and the warp that adds its sums to the tensor.
constexpr int kAddingThreads = kGroupThreads + 32;

}  // namespace vicinal::hopper::backward
