// Rows of the output and their LSE computed anew, one pair at a time, where a matrix product would spread
// numbers that do not belong to them: an unkept pair has the weight 0, and 0 * NaN is NaN. Slow, and hardly
// ever needed.
#pragma once

#include "vicinal/hopper/key_limits.cuh"
#include "vicinal/hopper/layout.cuh"
#include "vicinal/online_softmax.cuh"
#include "vicinal/ptx/convert.cuh"
#include "vicinal/tokens.cuh"

namespace vicinal::hopper {

template <int Rank>
struct ExactRow {
  Token<Rank> token;
  KeyRanges<Rank> keys;
  bool exists;
};

// Of one batch and head; by a warp, whose lanes share the channels.
template <Variant V, class T, int HeadDim, int ValueDim>
struct ExactRows {
  static constexpr int kRank = V::rank;
  static constexpr int kOut = (ValueDim + 31) / 32;

  const typename V::Arguments& a;
  int b, h;

  // The rows of a warp as the accumulator of a product has them: a lane speaks for the rows lane / 4 and
  // lane / 4 + 8. `lanes`: whose rows to redo.
  template <class Find>
  VICINAL_DEVICE void redo(u32 lanes, Find find) const {
#pragma unroll 1
    for (int r = 0; r < 16; ++r) {
      if (!(lanes >> r % 8 * 4 & 0xf)) continue;
      const ExactRow<kRank> row = find(r);
      if (row.exists) redo(row);
    }
  }

 private:
  struct Row {
    Query<kRank> q;
    typename V::Row values;
    const T* data;
    float factor, slope, shift;
    bool measured;       // the LSE is known: weights are summed over values
    float largest, sum;  // of the scores so far, and of exp(score - largest)
    float lse;
    float out[kOut];
  };

  VICINAL_DEVICE void redo(const ExactRow<kRank>& exact) const {
    const Token<kRank>& token = exact.token;
    Row row;
    row.q = query_of<V>(a, b, h, token);
    row.values = V::row(a, row.q);
    row.data = static_cast<const T*>(a.q.data) + b * a.q.batch + h * a.q.head + token_offset(a.q, token);
    row.factor = V::factor(a, row.q);
    row.slope = V::has_slope ? V::slope(a, row.q) : 0.0f;
    row.shift = V::has_shift ? V::shift(a, row.q) : 0.0f;
    row.largest = V::has_sink ? V::sink(a, row.q) : -infinity();
    row.sum = row.largest == -infinity() ? 0.0f : 1.0f;
    row.lse = -infinity();
#pragma unroll
    for (int i = 0; i < kOut; ++i) row.out[i] = 0.0f;
      // Not unrolled: scores are compiled once.
#pragma unroll 1
    for (int pass = 0; pass < 2; ++pass) {
      row.measured = pass == 1;
      if (row.measured && row.sum != 0.0f) row.lse = row.largest + logf(row.sum);
      visit(row, exact);
    }

    if (a.lse.data != nullptr && lane() == 0)
      static_cast<float*>(a.lse.data)[b * a.lse.batch + h * a.lse.head + token_offset(a.lse, token)] =
          row.lse;
    T* const to = static_cast<T*>(a.out.data) + b * a.out.batch + h * a.out.head + token_offset(a.out, token);
#pragma unroll
    for (int i = 0; i < kOut; ++i) {
      const int d = lane() + 32 * i;
      const float out = V::has_output ? V::output(a, row.q, row.out[i], row.lse) : row.out[i];
      if (d < ValueDim) to[d] = from_float<T>(out);
    }
  }

  VICINAL_DEVICE void visit(Row& row, const ExactRow<kRank>& exact) const {
    int count = 1;
#pragma unroll
    for (int i = 0; i < kRank; ++i) count *= larger(0, exact.keys.axis[i].end - exact.keys.axis[i].begin);
#pragma unroll 1
    for (int n = 0; n < count; ++n) {
      const Token<kRank> at = key_token(exact, row.q, n);
      add<false>(row, key_of<V>(a, at), a.k, token_offset(a.k, at), a.v, token_offset(a.v, at));
    }
    if constexpr (V::has_context) {
#pragma unroll 1
      for (int i = 0; i < a.context; ++i)
        add<true>(row, context_key<V>(i), a.context_k, i * a.context_k.axis[0], a.context_v,
                  i * a.context_v.axis[0]);
    }
  }

  // The n-th of the row's keys.
  VICINAL_DEVICE Token<kRank> key_token(const ExactRow<kRank>& exact, const Query<kRank>& q, int n) const {
    Token<kRank> token;
#pragma unroll
    for (int i = kRank - 1; i >= 0; --i) {
      const Axis axis = V::axis(a, i);
      const KeyRange& keys = exact.keys.axis[i];
      const int position = keys.begin + take_digit(n, keys.end - keys.begin, i == 0);
      token.local[i] = residue_of(axis, {q.coordinate[i], 1}) + position * axis.dilation -
                       static_cast<int>(a.k_axis[i].origin);
    }
    return token;
  }

  template <bool Context>
  VICINAL_DEVICE void add(Row& row, const Key<kRank>& k, const TensorArgument<kRank>& keys, i64 key_offset,
                          const TensorArgument<kRank>& values, i64 value_offset) const {
    typename V::Column column;
    if constexpr (V::has_columns && !Context) column = V::column(a, row.q, k);
    if constexpr (Context ? V::has_context_keeps : V::has_keeps) {
      if (!V::template keeps<Context>(a, row.values, column, k)) return;
    }
    const auto of_head = [&](const TensorArgument<kRank>& tensor, i64 offset) {
      return static_cast<const T*>(tensor.data) + row.q.b * tensor.batch + row.q.kv_h * tensor.head + offset;
    };
    const T* const from = of_head(keys, key_offset);
    float dot = 0.0f;
#pragma unroll 1
    for (int d = lane(); d < HeadDim; d += 32) dot = fmaf(to_float(row.data[d]), to_float(from[d]), dot);
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) dot += __shfl_xor_sync(~0u, dot, lanes);
    float score = V::has_core ? V::template core<Context>(a, row.values, column, k, dot) : dot;
    score = fmaf(score, row.factor, row.shift);
    if constexpr (V::has_slope)
      score = fmaf(row.slope, static_cast<float>(k.position - row.q.position), score);
    if (score == -infinity()) return;
    if (!row.measured) {
      const float top = fmaxf(row.largest, score);
      row.sum = fmaf(row.sum, natural_exp(row.largest - top), natural_exp(score - top));
      row.largest = top;
      return;
    }
    const float weight = natural_exp(score - row.lse);
    const T* const value = of_head(values, value_offset);
#pragma unroll
    for (int i = 0; i < kOut; ++i) {
      const int d = lane() + 32 * i;
      if (d < ValueDim) row.out[i] = fmaf(weight, to_float(value[d]), row.out[i]);
    }
  }
};

}  // namespace vicinal::hopper
