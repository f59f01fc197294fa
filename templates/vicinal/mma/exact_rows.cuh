// A row of the output computed anew, one pair at a time, where a matrix product would spread numbers that do
// not belong to it. Slow, and hardly ever needed.
#pragma once

#include "vicinal/mma/products.cuh"
#include "vicinal/online_softmax.cuh"
#include "vicinal/tile/tokens_of_tile.cuh"

namespace vicinal::mma {

// By a warp, whose lanes share the channels.
template <AttentionVariant V, class T, int HeadDim, int ValueDim>
class ExactRow {
  static constexpr int kRank = V::rank;
  static constexpr int kOut = (ValueDim + 31) / 32;

 public:
  VICINAL_DEVICE ExactRow(const typename V::Arguments& arguments, const Query<kRank>& query, i64 offset)
      : a(arguments), q(query) {
    data = static_cast<const T*>(a.q.data) + q.b * a.q.batch + q.h * a.q.head + offset;
    if constexpr (V::neighborhood) reach.start(a, q);
    q_norm = V::query_l2norm ? reciprocal_norm(data, a.q.dim) : 1.0f;
    state.start(V::has_sink ? V::sink(a, q) : -infinity(), true);
#pragma unroll
    for (int i = 0; i < kOut; ++i) out[i] = 0.0f;
  }

  VICINAL_DEVICE void run() {
    const int keys = token_count(a.k_axis);
    const int all = keys + (V::has_context ? static_cast<int>(a.context) : 0);
#pragma unroll 1
    for (int i = 0; i < all; ++i) {
      if (V::has_context && i >= keys) {
        const int index = i - keys;
        add(true, context_key<V>(index), a.context_k, index * a.context_k.axis[0], a.context_v,
            index * a.context_v.axis[0]);
        continue;
      }
      const Token<kRank> at = token_at(a.k_axis, i);
      const Key<kRank> k = key_of<V>(a, at);
      if constexpr (V::neighborhood) {
        if (!reach.holds(a, q, k)) continue;
      }
      add(false, k, a.k, token_offset(a.k, at), a.v, token_offset(a.v, at));
    }
  }

  VICINAL_DEVICE void store(i64 out_offset, i64 lse_offset) const {
    const float total = state.total(), norm = state.norm(total), lse = state.lse(total);
    T* const to = static_cast<T*>(a.out.data) + q.b * a.out.batch + q.h * a.out.head + out_offset;
#pragma unroll
    for (int i = 0; i < kOut; ++i) {
      const int d = lane() + 32 * i;
      const float x = V::has_output ? V::output(a, q, out[i] * norm, lse) : out[i] * norm;
      if (d < ValueDim) to[d * a.out.dim] = from_float<T>(x);
    }
    if (V::normalize == Normalize::softmax && a.lse.data != nullptr && lane() == 0)
      static_cast<float*>(a.lse.data)[q.b * a.lse.batch + q.h * a.lse.head + lse_offset] = lse;
  }

 private:
  VICINAL_DEVICE static float sum(float x) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(~0u, x, lanes);
    return x;
  }
  VICINAL_DEVICE static float reciprocal_norm(const T* row, i64 step) {
    float squares = 0.0f;
#pragma unroll 1
    for (int d = lane(); d < HeadDim; d += 32)
      squares = fmaf(to_float(row[d * step]), to_float(row[d * step]), squares);
    return 1.0f / fmaxf(sqrtf(sum(squares)), 1e-12f);
  }

  VICINAL_DEVICE void add(bool context, const Key<kRank>& k, const TensorArgument<kRank>& keys,
                          i64 key_offset, const TensorArgument<kRank>& values, i64 value_offset) {
    if constexpr (V::has_mask) {
      if (!mask_of<V>(a, context, q, k)) return;
    }
    const auto of_head = [&](const TensorArgument<kRank>& tensor, i64 offset) {
      return static_cast<const T*>(tensor.data) + q.b * tensor.batch + q.kv_h * tensor.head + offset;
    };
    const T* const key = of_head(keys, key_offset);
    float dot = 0.0f;
#pragma unroll 1
    for (int d = lane(); d < HeadDim; d += 32)
      dot = fmaf(to_float(data[d * a.q.dim]), to_float(key[d * keys.dim]), dot);
    float s = sum(dot);
    if constexpr (V::query_l2norm) s *= q_norm;
    if constexpr (V::key_l2norm) s *= reciprocal_norm(key, keys.dim);
    s *= V::scale(a, q);
    if constexpr (V::has_score) s = score_of<V>(a, context, q, k, s);
    if (s == -infinity()) return;
    const float factor = state.raise(s), weight = state.weigh(s);
    const T* const value = of_head(values, value_offset);
#pragma unroll
    for (int i = 0; i < kOut; ++i) {
      const int d = lane() + 32 * i;
      if (d < ValueDim) out[i] = fmaf(weight, to_float(value[d * values.dim]), out[i] * factor);
    }
  }

  const typename V::Arguments& a;
  const Query<kRank>& q;
  const T* data;
  Reach<V> reach;
  float q_norm;
  RowWeights<V::normalize> state;
  float out[kOut];
};

// Row r of a tile.
template <AttentionVariant V, class T, int HeadDim, int ValueDim, int TileQ>
VICINAL_DEVICE void redo_row(const typename V::Arguments& a, const QueryTile<V, TileQ>& queries, int r) {
  ExactRow<V, T, HeadDim, ValueDim> row(a, queries.query[r], queries.q_offset[r]);
  row.run();
  row.store(queries.out_offset[r], queries.lse_offset[r]);
}

}  // namespace vicinal::mma
