// The reference kernel: one thread per query row, all keys in order, three passes, each a line of the
// definition. It is the oracle on the GPU, so it shares no tiling, no online softmax and no tile skipping
// with the fast kernels. No loop is unrolled: what matters here is to read well and to compile fast.
#pragma once

#include "vicinal/online_softmax.cuh"
#include "vicinal/ptx/convert.cuh"
#include "vicinal/tokens.cuh"

namespace vicinal::reference {

constexpr int kThreads = 256;

// Element i of a tensor whose row starts at `row`.
template <class T, int Rank>
VICINAL_DEVICE float element(const TensorArgument<Rank>& tensor, i64 row, int i) {
  return to_float(static_cast<const T*>(tensor.data)[row + i * tensor.dim]);
}

template <class T, int HeadDim, int Rank>
VICINAL_DEVICE float norm(const TensorArgument<Rank>& tensor, i64 row) {
  float squares = 0.0f;
#pragma unroll 1
  for (int i = 0; i < HeadDim; ++i) {
    const float x = element<T>(tensor, row, i);
    squares = fmaf(x, x, squares);
  }
  return fmaxf(sqrtf(squares), 1e-12f);
}

template <class V, class T, int HeadDim, bool Context>
VICINAL_DEVICE float score(const typename V::Arguments& a, const Query<V::rank>& q, const Key<V::rank>& k,
                           i64 q_row, i64 k_row) {
  const auto& keys = Context ? a.context_k : a.k;
  float dot = 0.0f;
#pragma unroll 1
  for (int i = 0; i < HeadDim; ++i) dot = fmaf(element<T>(a.q, q_row, i), element<T>(keys, k_row, i), dot);
  if (V::query_l2norm) dot /= norm<T, HeadDim>(a.q, q_row);
  if (V::key_l2norm) dot /= norm<T, HeadDim>(keys, k_row);
  return V::template score<Context>(a, q, k, V::scale(a, q) * dot);
}

// Calls visit(score, values, value row) for every key that the query keeps.
template <class V, class T, int HeadDim, class Visit>
VICINAL_DEVICE void for_each_kept(const typename V::Arguments& a, const Query<V::rank>& q, i64 q_row,
                                  Visit visit) {
  const int keys = token_count(a.k_axis);
#pragma unroll 1
  for (int j = 0; j < keys; ++j) {
    const auto token = token_at(a.k_axis, j);
    const auto k = key_of<V>(a, token);
    if constexpr (V::neighborhood) {
      Reach<V> reach;
      reach.start(a, q);
      if (!reach.holds(a, q, k)) continue;
    }
    if (V::has_mask && !V::template mask<false>(a, q, k)) continue;
    const i64 k_row = q.b * a.k.batch + q.kv_h * a.k.head + token_offset(a.k, token);
    const i64 v_row = q.b * a.v.batch + q.kv_h * a.v.head + token_offset(a.v, token);
    const float s = score<V, T, HeadDim, false>(a, q, k, q_row, k_row);
    if (s != -infinity()) visit(s, a.v, v_row);
  }
  if constexpr (V::has_context) {
#pragma unroll 1
    for (int j = 0; j < a.context; ++j) {
      const auto k = context_key<V>(j);
      if (V::has_mask && !V::template mask<true>(a, q, k)) continue;
      const i64 k_row = q.b * a.context_k.batch + q.kv_h * a.context_k.head + j * a.context_k.axis[0];
      const i64 v_row = q.b * a.context_v.batch + q.kv_h * a.context_v.head + j * a.context_v.axis[0];
      const float s = score<V, T, HeadDim, true>(a, q, k, q_row, k_row);
      if (s != -infinity()) visit(s, a.context_v, v_row);
    }
  }
}

template <AttentionVariant V, class T, int HeadDim, int ValueDim, int TileQ, int TileK>
VICINAL_DEVICE void forward(const typename V::Arguments& a) {
  constexpr bool kSoftmax = V::normalize == Normalize::softmax;
  const i64 queries = token_count(a.q_axis);
  const i64 rows = a.batch * a.heads * queries;
#pragma unroll 1
  for (i64 row = blockIdx.x * static_cast<i64>(blockDim.x) + threadIdx.x; row < rows;
       row += gridDim.x * static_cast<i64>(blockDim.x)) {
    const int b = static_cast<int>(row / queries / a.heads), h = static_cast<int>(row / queries % a.heads);
    const auto token = token_at(a.q_axis, static_cast<int>(row % queries));
    const auto q = query_of<V>(a, b, h, token);
    const i64 q_row = b * a.q.batch + h * a.q.head + token_offset(a.q, token);

    float base = 0.0f, sum = 0.0f, lse = 0.0f;
    if (kSoftmax) {
      const float sink = V::has_sink ? V::sink(a, q) : -infinity();
      float largest = sink;
      for_each_kept<V, T, HeadDim>(a, q, q_row,
                                   [&](float s, const auto&, i64) { largest = fmaxf(largest, s); });
      if (largest != -infinity()) base = largest;
      for_each_kept<V, T, HeadDim>(a, q, q_row, [&](float s, const auto&, i64) { sum += expf(s - base); });
      if (sink != -infinity()) sum += expf(sink - base);
      lse = base + logf(sum);
    }

    float out[ValueDim] = {};
    for_each_kept<V, T, HeadDim>(a, q, q_row, [&](float s, const auto& values, i64 v_row) {
      const float weight = kSoftmax                             ? expf(s - base) / sum
                           : V::normalize == Normalize::sigmoid ? 1.0f / (1.0f + expf(-s))
                                                                : s;
#pragma unroll 1
      for (int i = 0; i < ValueDim; ++i) out[i] = fmaf(weight, element<T>(values, v_row, i), out[i]);
    });

    const i64 o_row = b * a.out.batch + h * a.out.head + token_offset(a.out, token);
#pragma unroll 1
    for (int i = 0; i < ValueDim; ++i) {
      const float x = V::has_output ? V::output(a, q, out[i], lse) : out[i];
      static_cast<T*>(a.out.data)[o_row + i * a.out.dim] = from_float<T>(x);
    }
    if (kSoftmax && a.lse.data != nullptr) {
      static_cast<float*>(a.lse.data)[b * a.lse.batch + h * a.lse.head + token_offset(a.lse, token)] = lse;
    }
  }
}

}  // namespace vicinal::reference
