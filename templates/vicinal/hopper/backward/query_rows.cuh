// What each tile of queries brings to the kernel of keys beside its channels, computed once for all tiles of
// keys that it meets; and the terms of its rows.
#pragma once

#include "vicinal/hopper/backward/contract.cuh"
#include "vicinal/hopper/key_limits.cuh"
#include "vicinal/hopper/layout.cuh"
#include "vicinal/online_softmax.cuh"

namespace vicinal::hopper::backward {

template <Variant V, class T, int HeadDim, int ValueDim, int TileQ>
class RowsWriter {
  static constexpr int kRank = V::rank;
  using Rows = QueryRows<V, TileQ>;

 public:
  VICINAL_DEVICE explicit RowsWriter(const LaunchArguments<typename V::Arguments>& arguments)
      : launch(arguments), a(arguments.backward) {}

  // By one warp.
  VICINAL_DEVICE void write(int b, int h, int tile) const {
    const BoxGrid<V> boxes = query_boxes<V>(a);
    const i64 number = (b * a.heads + h) * boxes.count() + tile;
    Rows& rows = static_cast<Rows*>(launch.query_rows)[number];
    int place[kRank];
    boxes.place(tile, place);
    TileReach<kRank> reach;
#pragma unroll
    for (int i = 0; i < kRank; ++i) {
      reach.some.axis[i] = {2147483647, 0};
      reach.all.axis[i] = {0, 2147483647};
    }
#pragma unroll 1
    for (int r = lane(); r < TileQ; r += 32) {
      Token<kRank> token;
      const bool exists = boxes.token(place, r, token);
      const Query<kRank> q = query_of<V>(a, b, h, token);
      const float lse = static_cast<const float*>(a.lse.data)[query_offset<V>(a, a.lse, q)];
      // The gradient of a row's lse, which is also that of its weights' sum.
      float term = -product(q), exponent = -infinity();
      if (exists) {
        // Rows that keep nothing, and those whose sink is all, have no gradients.
        if (lse != -infinity()) exponent = ((V::has_core ? 0.0f : V::shift(a, q)) - lse) * kLog2E;
        if (a.d_lse.data != nullptr)
          term += static_cast<const float*>(a.d_lse.data)[query_offset<V>(a, a.d_lse, q)];
        a.row_terms[row_number<V>(a, q)] = term;
      }
      rows.exponent[row_place(r)] = exponent;
      rows.term[row_place(r)] = exists ? term : 0.0f;
      if constexpr (kHasReach<V> || V::has_limits) {
        const KeyRanges<kRank> keys = key_limits<V>(a, q);
        if constexpr (V::has_limits) rows.limits[r] = keys.axis[0];
        if constexpr (kHasReach<V>) widen(reach, keys, exists);
      }
      if constexpr (V::keeps_rows) rows.row[r] = V::row(a, q);
    }
    if constexpr (kHasReach<V>) finish(reach, number);
    if (!visited(b, h, tile, reach)) clear(number);
  }

 private:
  // Of the lane's row of out and its gradient. Lanes share rows, 16 bytes each, and have several under way.
  VICINAL_DEVICE float product(const Query<kRank>& own) const {
    constexpr int kRowLanes = ValueDim / 8, kAtOnce = 32 / kRowLanes, kUnderWay = 8;
    const T* const from = static_cast<const T*>(a.out.data) + lane() % kRowLanes * 8;
    const T* const d_from = static_cast<const T*>(a.d_out.data) + lane() % kRowLanes * 8;
    const i64 out = query_offset<V>(a, a.out, own), d_out = query_offset<V>(a, a.d_out, own);
    float mine = 0.0f;
#pragma unroll
    for (int step = 0; step < kRowLanes; step += kUnderWay) {
      uint4 x[kUnderWay], d[kUnderWay];
#pragma unroll
      for (int i = 0; i < kUnderWay; ++i) {
        const int row = (step + i) * kAtOnce + lane() / kRowLanes;
        x[i] = *reinterpret_cast<const uint4*>(from + __shfl_sync(~0u, out, row));
        d[i] = *reinterpret_cast<const uint4*>(d_from + __shfl_sync(~0u, d_out, row));
      }
#pragma unroll
      for (int i = 0; i < kUnderWay; ++i) {
        float numbers[8], d_numbers[8], sum = 0.0f;
        unpack<T>(x[i], numbers);
        unpack<T>(d[i], d_numbers);
#pragma unroll
        for (int c = 0; c < 8; ++c) sum = fmaf(d_numbers[c], numbers[c], sum);
#pragma unroll
        for (int over = kRowLanes / 2; over > 0; over /= 2) sum += __shfl_xor_sync(~0u, sum, over);
        // The row's own lane need not be one of those that share it.
        sum = __shfl_sync(~0u, sum, lane() % kAtOnce * kRowLanes);
        if (lane() / kAtOnce == step + i) mine = sum;
      }
    }
    return mine;
  }

  // Whether some tile of keys adds to the tile's sums.
  VICINAL_DEVICE bool visited(int b, int h, int tile, const TileReach<kRank>& reach) const {
    const int tiles = key_boxes<V>(a).count();
    if constexpr (V::has_keeps) {
      const int words = tile_count(tiles, 32);
      const u32* const some =
          a.tiles.pairs + (slice_of(a.tiles, b, h) * query_boxes<V>(a).count() + tile) * 2 * words;
      bool any = false;
      for (int i = lane(); i < words; i += 32) any = any || some[i] != 0;
      return __any_sync(~0u, any);
    }
    bool any = tiles > 0;
    if constexpr (kHasReach<V>) {
#pragma unroll
      for (int i = 0; i < kRank; ++i) any = any && reach.some.axis[i].begin < reach.some.axis[i].end;
    }
    return any;
  }
  VICINAL_DEVICE void clear(i64 number) const {
    constexpr int kFloats = QuerySums<TileQ, HeadDim>::kFloats;
    auto* const sums = reinterpret_cast<float4*>(launch.query_sums + number * kFloats);
    for (int i = lane(); i < kFloats / 4; i += 32) sums[i] = {0.0f, 0.0f, 0.0f, 0.0f};
  }

  // What stands past the last query repeats one that there is, or keeps nothing.
  VICINAL_DEVICE static void widen(TileReach<kRank>& reach, const KeyRanges<kRank>& keys, bool some) {
#pragma unroll
    for (int i = 0; i < kRank; ++i) {
      KeyRange& all = reach.all.axis[i];
      if (some) all = {larger(all.begin, keys.axis[i].begin), smaller(all.end, keys.axis[i].end)};
    }
#pragma unroll
    for (int i = 0; i < kRank; ++i) some = some && keys.axis[i].begin < keys.axis[i].end;
    if (!some) return;
#pragma unroll
    for (int i = 0; i < kRank; ++i) {
      KeyRange& any = reach.some.axis[i];
      any = {smaller(any.begin, keys.axis[i].begin), larger(any.end, keys.axis[i].end)};
    }
  }

  VICINAL_DEVICE void finish(TileReach<kRank>& reach, i64 number) const {
#pragma unroll
    for (int i = 0; i < kRank; ++i) {
      KeyRange &some = reach.some.axis[i], &all = reach.all.axis[i];
      some = {__reduce_min_sync(~0u, some.begin), __reduce_max_sync(~0u, some.end)};
      all = {__reduce_max_sync(~0u, all.begin), __reduce_min_sync(~0u, all.end)};
    }
    if (lane() == 0) launch.reaches[number] = reach;
  }

  const LaunchArguments<typename V::Arguments>& launch;
  const typename V::Arguments& a;
};

}  // namespace vicinal::hopper::backward
