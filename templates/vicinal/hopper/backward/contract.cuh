// What the Hopper kernel of the backward pass is launched with, and who is who in its blocks.
#pragma once

#include "vicinal/backward_arguments.cuh"
#include "vicinal/box_grid.cuh"
#include "vicinal/hopper/contract.cuh"

namespace vicinal::hopper::backward {

template <class V>
concept Variant = hopper::Variant<V> &&
    requires(const typename V::Arguments& a, const Query<V::rank>& q, const Key<V::rank>& k, float s) {
  { V::template d_score<false>(a, q, k, s) } -> Same<float>;  // of the score by the scaled dot product
  V::dot_factor_varies;                                       // dot_factor() is not the same for all heads
  V::keeps_rows;                                              // keeps() reads what row() has
  V::rise, V::bound;  // where it has a gain, the score's derivative is rise * (1 - (exponent / bound)^2)
};

// Boxes of 64 channels and of the tokens that one copy brings: of q and d_out a tile's queries, of k and v a
// tile's keys; of d_k and d_v, where there is no dilation, the 64 keys of a warpgroup. Both sides are cut
// into boxes on a grid (box_grid.cuh).
struct TensorMaps {
  TensorMap q, k, v, d_out, d_k, d_v;
};

// What a head and a batch add to the coordinates of a tensor with three token axes, and the tokens that one
// copy brings along each axis.
template <int Rank>
struct Boxes {
  HeadSteps q, k, v, d_out, d_k, d_v;
  i64 q_copy[Rank], k_copy[Rank];
  ColumnArguments<Rank> columns;  // of a tile of queries
};

// What a tile's queries bring beside their channels, as it lies in memory and in a stage: what is added to an
// exponent, in base 2; row_terms; the keys that limits, and windows with them, leave; and what the rest of
// the mask reads. The first two lie by row_place(), where a thread of a product finds four of its columns
// side by side.
template <class V, int TileQ, bool Limits, bool Rows>
struct QueryRowsOf {
  float exponent[TileQ], term[TileQ];
};
template <class V, int TileQ>
struct QueryRowsOf<V, TileQ, true, false> : QueryRowsOf<V, TileQ, false, false> {
  KeyLimits limits[TileQ];
};
template <class V, int TileQ, bool Limits>
struct QueryRowsOf<V, TileQ, Limits, true> : QueryRowsOf<V, TileQ, Limits, false> {
  typename V::Row row[TileQ];
};
template <class V, int TileQ>
struct alignas(16) QueryRows : QueryRowsOf<V, TileQ, V::has_limits, V::keeps_rows> {};
VICINAL_DEVICE constexpr int row_place(int r) {
  return r / 16 * 16 + r % 8 / 2 * 4 + r / 8 % 2 * 2 + r % 2;
}

// What the gradients of scores are of, that keys' and queries' gradients need: the dot product is what
// Q and K give, and the score may be a function of it times the scale.
template <class V>
VICINAL_DEVICE float dot_factor(const typename V::Arguments& a, const Query<V::rank>& q) {
  return V::has_core ? V::scale(a, q) : V::factor(a, q);
}
// The part of it that gradients get at the end, where it is the same for all that they are summed over.
template <class V>
VICINAL_DEVICE float last_factor(const typename V::Arguments& a, const Query<V::rank>& q) {
  return V::dot_factor_varies ? 1.0f : dot_factor<V>(a, q);
}

// Keys that some query of a tile is left, and that all are. Where keeps() has a say, tiles of keys have bits
// in its place (planning/plan_pairs.cuh).
template <class V>
constexpr bool kHasReach = (V::neighborhood || V::has_limits) && !V::has_keeps;
template <int Rank>
struct TileReach {
  KeyRanges<Rank> some, all;
};

template <class Arguments>
struct LaunchArguments;

template <int Rank, class Parameters>
struct LaunchArguments<BackwardArguments<Rank, Parameters, 0>> {
  TensorMaps maps;
  Boxes<Rank> boxes;
  // So many heads of keys (and of batches) are done before the next ones: their tensors share the L2 cache.
  i64 section;
  // The axis along which tiles of keys are counted last, and so done last; 0 where they add in turn.
  i64 slowest;
  // By batch, head and tile of queries; the first is an array of QueryRows, the second is there by
  // kHasReach.
  void* query_rows;
  TileReach<Rank>* reaches;
  // Gradients of queries before their factor, as sums of fp32: by batch, head and tile of queries, of a tile
  // as QuerySums has them. Of the tiles of keys that it sees one stores, and the others add once it has.
  float* query_sums;
  // How many tiles of keys blocks have taken, and how many of queries to finish their gradients; 0.
  u32* drawn;
  // By batch, head and tile of queries; all 0. Where the tile of keys with turn 0 stores: how many have
  // added, of which in any order no more than the first says so. Where it is who asks first: the sums' Begun.
  u32* turns;
  // How many tiles of keys have added all that they add, by batch and head of keys; all 0. Null: they add in
  // turn, and nobody asks before the kernel of keys has ended.
  u32* finished;
  // Not 0 once a sum came to what is not finite: the numbers of an unkept pair may be in it.
  u32* poisoned;
  BackwardArguments<Rank, Parameters, 0> backward;

  VICINAL_DEVICE bool in_turn() const { return finished == nullptr; }
};

// Whether the tile of keys that asks first stores a tile's sums, and not the one with turn 0: where limits or
// windows along one axis do not say in which order blocks come to the same queries.
template <class V>
VICINAL_DEVICE bool first_stores(const LaunchArguments<typename V::Arguments>& launch) {
  constexpr bool kForetold = V::rank == 1 && kHasReach<V>;
  return !kForetold && !launch.in_turn();
}
// Whether somebody stores them, or has.
enum Begun : u32 { kNobody, kStoring, kStored };

constexpr int kGroups = 2;  // warpgroups that compute, of 64 keys each
constexpr int kTileK = kGroups * 64;

// How the sums of a tile of queries lie in memory: as the threads of the two groups have them, each four that
// belong together side by side, thread by thread. With 64 queries a group has half of the channels, with 128
// half of the queries.
template <int TileQ, int HeadDim>
struct QuerySums {
  static constexpr bool kSplitsChannels = TileQ == 64;
  static constexpr int kColumns = kSplitsChannels ? HeadDim / kGroups : HeadDim;  // of a group
  static constexpr int kPerThread = kColumns / 2;
  static constexpr int kGroupFloats = 64 * kColumns;
  static constexpr int kFloats = kGroups * kGroupFloats;
};

}  // namespace vicinal::hopper::backward
