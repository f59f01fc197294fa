// What the Hopper kernel of the backward pass is launched with, and who is who in its blocks.
#pragma once

#include "vicinal/backward_arguments.cuh"
#include "vicinal/hopper/contract.cuh"

namespace vicinal::hopper::backward {

template <class V>
concept Variant = hopper::Variant<V> &&
    requires(const typename V::Arguments& a, const Query<V::rank>& q, const Key<V::rank>& k, float s) {
  { V::template d_score<false>(a, q, k, s) } -> Same<float>;  // of the score by the scaled dot product
};

// Boxes of 64 channels: of q and d_out a tile's queries, of k and v a tile's keys, of d_k and d_v the 64 keys
// of a warpgroup. Both sides are cut into boxes on a grid (box_grid.cuh).
struct TensorMaps {
  TensorMap q, k, v, d_out, d_k, d_v;
};

// What a head and a batch add to the coordinates of a tensor with three token axes.
struct Steps {
  HeadSteps q, k, v, d_out, d_k, d_v;
};

template <class Arguments>
struct LaunchArguments {
  TensorMaps maps;
  Steps steps;
  // Gradients of queries before their factor, as sums of fp32: by batch, head and tile of queries, of a tile
  // as QuerySums has them. All 0.
  float* query_sums;
  u32* drawn;  // how many tiles of keys blocks have taken; 0
  // How many tiles of keys have added to a tile of queries, by batch, head and tile; all 0. Null: they add in
  // any order.
  u32* turns;
  // Not 0 once a sum came to what is not finite: the numbers of an unkept pair may be in it.
  u32* poisoned;
  Arguments backward;
};

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
