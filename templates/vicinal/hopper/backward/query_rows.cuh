// What each tile of queries brings to the kernel of keys beside its channels, computed once for all tiles of
// keys that it meets; and the terms of its rows.
#pragma once

#include "vicinal/hopper/backward/contract.cuh"
#include "vicinal/hopper/key_limits.cuh"
#include "vicinal/online_softmax.cuh"

namespace vicinal::hopper::backward {

template <Variant V, class T, int ValueDim, int TileQ>
class RowsWriter {
  static constexpr int kRank = V::rank;
  static constexpr int kRowLanes = ValueDim / 8, kRowsAtOnce = 32 / kRowLanes;  // 16 bytes a lane
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
    write_terms(b, h, place, rows);
    TileReach<kRank> reach;
#pragma unroll
    for (int i = 0; i < kRank; ++i) {
      reach.some.axis[i] = {2147483647, 0};
      reach.all.axis[i] = {0, 2147483647};
    }
#pragma unroll
    for (int r = static_cast<int>(threadIdx.x) % 32; r < TileQ; r += 32) {
      Token<kRank> token;
      const bool exists = boxes.token(place, r, token);
      const Query<kRank> q = query_of<V>(a, b, h, token);
      float exponent = -infinity();
      if (exists) {
        const float lse = static_cast<const float*>(a.lse.data)[query_offset<V>(a, a.lse, q)];
        // Rows that keep nothing, and those whose sink is all, have no gradients.
        if (lse != -infinity()) exponent = ((V::has_core ? 0.0f : V::shift(a, q)) - lse) * kLog2E;
      }
      rows.exponent[row_place(r)] = exponent;
      if constexpr (kHasReach<V> || V::has_limits) {
        const KeyRanges<kRank> keys = key_limits<V>(a, q);
        if constexpr (V::has_limits) rows.limits[r] = keys.axis[0];
        if constexpr (kHasReach<V>) widen(reach, keys, exists);
      }
      if constexpr (V::keeps_rows) rows.row[r] = V::row(a, q);
    }
    if constexpr (kHasReach<V>) finish(reach, number);
  }

 private:
  // The gradient of a row's lse, which is also that of its weights' sum.
  VICINAL_DEVICE void write_terms(int b, int h, const int (&place)[kRank], Rows& rows) const {
    const BoxGrid<V> boxes = query_boxes<V>(a);
    const int lane = static_cast<int>(threadIdx.x) % 32, channel = lane % kRowLanes * 8;
    const T *const out = static_cast<const T*>(a.out.data), *const d_out =
                                                                static_cast<const T*>(a.d_out.data);
#pragma unroll 4
    for (int r = lane / kRowLanes; r < TileQ; r += kRowsAtOnce) {
      Token<kRank> token;
      const bool exists = boxes.token(place, r, token);
      float x[8], d[8], product = 0.0f;
      const Query<kRank> q = query_of<V>(a, b, h, token);
      unpack<T>(*reinterpret_cast<const uint4*>(out + query_offset<V>(a, a.out, q) + channel), x);
      unpack<T>(*reinterpret_cast<const uint4*>(d_out + query_offset<V>(a, a.d_out, q) + channel), d);
#pragma unroll
      for (int i = 0; i < 8; ++i) product = fmaf(d[i], x[i], product);
#pragma unroll
      for (int step = kRowLanes / 2; step > 0; step /= 2) product += __shfl_xor_sync(~0u, product, step);
      if (lane % kRowLanes != 0) continue;
      float term = -product;
      if (a.d_lse.data != nullptr)
        term += static_cast<const float*>(a.d_lse.data)[query_offset<V>(a, a.d_lse, q)];
      rows.term[row_place(r)] = exists ? term : 0.0f;
      if (exists) a.row_terms[row_number<V>(a, q)] = term;
    }
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
    if (threadIdx.x % 32 == 0) launch.reaches[number] = reach;
  }

  const LaunchArguments<typename V::Arguments>& launch;
  const typename V::Arguments& a;
};

}  // namespace vicinal::hopper::backward
