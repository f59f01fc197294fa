// Forward mode on the FP32 units of any GPU from sm_75 on: from tangents of Q, K, V, captured tensors and
// params to those of the output and the LSE.
//
// A tile of queries walks over its keys twice: for the LSE, whose tangent is the mean of the scores' tangents
// by weight, and for the output. No other run has to go before, and there is nothing to remember between.
#pragma once

#include "vicinal/tile/tile_pair.cuh"

namespace vicinal::backward {

template <DifferentiatedVariant V, class T, int HeadDim, int ValueDim>
class Tangents : TilePair<V, T, HeadDim, ValueDim> {
  using Pair = TilePair<V, T, HeadDim, ValueDim>;
  using Pair::a;
  using Pair::shared;
  static constexpr bool kSoftmax = V::normalize == Normalize::softmax;

 public:
  struct Shared : Pair::Shared {
    SharedTile<kTile, kTile, 4> by_key;  // <q, dk>
    i64 d_q_offset[kTile], d_k_offset[kTile], d_v_offset[kTile];
    float q_along[kTile], k_along[kTile];  // <x, dx> / <x, x>, of what is divided by its norm
    float d_scale;
  };
  VICINAL_DEVICE Tangents(const typename V::Arguments& arguments, Shared& storage)
      : Pair(arguments, storage), own(storage) {}

  VICINAL_DEVICE void run() {
    this->each_queries([&](int b, int h, int number) { tile(b, h, number); });
  }

 private:
  // Of a row: what its weights are made with.
  struct Row {
    float lse = 0.0f, d_lse = 0.0f;
  };
  using Columns = float[kMine][Pair::kColumns];

  VICINAL_DEVICE void tile(int b, int h, int number) {
    if (!this->begin_queries(b, h, number)) return;
    const int kv_h = shared.queries.query[0].kv_h;
    if (const int r = threadIdx.x; r < kTile)
      own.d_q_offset[r] =
          shared.queries.exists(r) ? query_offset<V>(a, a.d_q, shared.queries.query[r]) : kNoRow;
    if (threadIdx.x == 0) own.d_scale = of_row_sites<Root::scale>(shared.queries.query[0]);
    Row row[kMine];
    if constexpr (kSoftmax) find_lse(b, h, kv_h, number, row);
    Columns d_out = {}, out = {};
    this->each_keys(b, h, number, [&](bool context, bool full) {
      if (!score(b, kv_h, context, full)) return;
#pragma unroll
      for (int i = 0; i < kMine; ++i) {
#pragma unroll
        for (int c = 0; c < kMine; ++c) weigh(row[i], thread_row(i), thread_key(c));
      }
      const auto weights = [&](int r, int j) { return shared.weights.at(r, j); };
      const auto d_weights = [&](int r, int j) { return shared.d_score.at(r, j); };
      this->template accumulate<T, ValueDim>(d_out, this->values(b, kv_h, context), shared.keys.v_offset,
                                             d_weights);
      const TensorArgument<V::rank>& d_v = V::has_context && context ? a.d_context_v : a.d_v;
      if (d_v.data != nullptr)
        this->template accumulate<T, ValueDim>(d_out, row_source<T>(d_v, 0), own.d_v_offset, weights);
      if constexpr (V::has_output)
        this->template accumulate<T, ValueDim>(out, this->values(b, kv_h, context), shared.keys.v_offset,
                                               weights);
    });
    store(row, out, d_out);
  }

  VICINAL_DEVICE void find_lse(int b, int h, int kv_h, int number, Row (&row)[kMine]) {
    const Query<V::rank>& any = shared.queries.query[0];
    const float sink = V::has_sink ? V::sink(a, any) : -infinity();
    RowWeights<V::normalize> weights[kMine];
    float moment[kMine] = {};  // of the scores' tangents
#pragma unroll
    for (int i = 0; i < kMine; ++i) weights[i].start(sink, thread_lane() == 0);
    this->each_keys(b, h, number, [&](bool context, bool full) {
      if (!score(b, kv_h, context, full)) return;
#pragma unroll
      for (int i = 0; i < kMine; ++i) {
        float largest = -infinity();
#pragma unroll
        for (int c = 0; c < kMine; ++c)
          largest = fmaxf(largest, shared.weights.at(thread_row(i), thread_key(c)));
        moment[i] *= weights[i].raise(reduce_row(largest, [](float x, float y) { return fmaxf(x, y); }));
#pragma unroll
        for (int c = 0; c < kMine; ++c) {
          const float weight = weights[i].weigh(shared.weights.at(thread_row(i), thread_key(c)));
          if (weight != 0.0f) moment[i] += weight * shared.d_score.at(thread_row(i), thread_key(c));
        }
      }
    });
    const float d_sink = of_row_sites<Root::sink>(any);
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const float total = sum_row(weights[i].total());
      row[i].lse = weights[i].lse(total);
      row[i].d_lse = sum_row(moment[i]) * weights[i].norm(total);
      if (V::has_sink && sink != -infinity() && d_sink != 0.0f)
        row[i].d_lse += (sink == row[i].lse ? 1.0f : natural_exp(sink - row[i].lse)) * d_sink;
    }
  }

  // Leaves scores in Shared::weights, -inf where a pair is not kept, and their tangents in Shared::d_score.
  // False, and nothing of it, where none is.
  VICINAL_DEVICE bool score(int b, int kv_h, bool context, bool full) {
    const TensorArgument<V::rank>& d_k = V::has_context && context ? a.d_context_k : a.d_k;
    const TensorArgument<V::rank>& d_v = V::has_context && context ? a.d_context_v : a.d_v;
    if (const int j = threadIdx.x; j < kTile) {
      const bool exists = shared.keys.exists(j);
      const Key<V::rank>& k = shared.keys.key[j];
      own.d_k_offset[j] = exists ? key_offset<V>(a, d_k, b, kv_h, context, k) : kNoRow;
      own.d_v_offset[j] = exists ? key_offset<V>(a, d_v, b, kv_h, context, k) : kNoRow;
    }
    __syncthreads();
    const u32 kept = this->keep(context, full);
    if (!__syncthreads_or(kept != 0)) return false;
    const auto q = row_source<T>(a.q, 0), k = this->keys(b, kv_h, context);
    float dot[kMine][kMine] = {}, by_query[kMine][kMine] = {}, by_key[kMine][kMine] = {};
    this->template multiply<HeadDim, V::query_l2norm || V::key_l2norm>(dot, q, shared.queries.q_offset, k,
                                                                       shared.keys.k_offset);
    if (a.d_q.data != nullptr)
      this->template multiply<HeadDim, false>(by_query, row_source<T>(a.d_q, 0), own.d_q_offset, k,
                                              shared.keys.k_offset);
    if (d_k.data != nullptr)
      this->template multiply<HeadDim, false>(by_key, q, shared.queries.q_offset, row_source<T>(d_k, 0),
                                              own.d_k_offset);
    this->put(shared.weights, dot);
    this->put(shared.d_score, by_query);
    this->put(own.by_key, by_key);
    if constexpr (V::query_l2norm)
      along(own.q_along, q, shared.queries.q_offset, a.d_q, own.d_q_offset, shared.q_norm);
    if constexpr (V::key_l2norm)
      along(own.k_along, k, shared.keys.k_offset, d_k, own.d_k_offset, shared.k_norm);
    __syncthreads();
#pragma unroll 1
    for (int pair = 0; pair < kMine * kMine; ++pair)
      score_pair(thread_row(pair / kMine), thread_key(pair % kMine), context, (kept >> pair & 1) != 0);
    __syncthreads();
    return true;
  }

  VICINAL_DEVICE void along(float (&result)[kTile], const RowSource<T>& x, const i64* offset,
                            const TensorArgument<V::rank>& tangent, const i64* d_offset,
                            const float* reciprocal) const {
    const int t = threadIdx.x;
    if (t >= kTile) return;
    float product = 0.0f;
    if (tangent.data != nullptr && offset[t] != kNoRow) {
      const RowSource<T> d = row_source<T>(tangent, 0);
#pragma unroll 1
      for (int c = 0; c < HeadDim; ++c)
        product = fmaf(to_float(x.data[offset[t] + c * x.step]) * reciprocal[t],
                       to_float(d.data[d_offset[t] + c * d.step]) * reciprocal[t], product);
    }
    result[t] = product;
  }

  VICINAL_DEVICE void score_pair(int r, int j, bool context, bool kept) {
    float score = -infinity(), tangent = 0.0f;
    if (kept) {
      float dot = shared.weights.at(r, j), by_query = shared.d_score.at(r, j), by_key = own.by_key.at(r, j);
      // Through a norm; one at its floor passes nothing on.
      constexpr float kFloored = 0.999e12f;
      if constexpr (V::query_l2norm)
        by_query = shared.q_norm[r] >= kFloored ? 0.0f : by_query - own.q_along[r] * dot;
      if constexpr (V::key_l2norm)
        by_key = shared.k_norm[j] >= kFloored ? 0.0f : by_key - own.k_along[j] * dot;
      float d_dot = by_query + by_key;
      if constexpr (V::query_l2norm) dot *= shared.q_norm[r], d_dot *= shared.q_norm[r];
      if constexpr (V::key_l2norm) dot *= shared.k_norm[j], d_dot *= shared.k_norm[j];
      const Query<V::rank>& q = shared.queries.query[r];
      const Key<V::rank>& k = shared.keys.key[j];
      const float s = shared.scale * dot;
      score = score_of<V>(a, context, q, k, s);
      if (score != -infinity()) {
        const float slope = d_score_of<V>(a, context, q, k, s);
        if (slope != 0.0f) tangent = slope * fmaf(own.d_scale, dot, shared.scale * d_dot);
        tangent += V::has_context && context ? of_sites<Root::context_score>(q, k, s, 0.0f, 0.0f)
                                             : of_sites<Root::score>(q, k, s, 0.0f, 0.0f);
      }
    }
    shared.weights.at(r, j) = score;
    shared.d_score.at(r, j) = tangent;
  }

  // From a score and its tangent to a weight and its tangent, in their places.
  VICINAL_DEVICE void weigh(const Row& row, int r, int j) {
    const float score = shared.weights.at(r, j), d_score = shared.d_score.at(r, j);
    float weight = 0.0f, tangent = 0.0f;
    if (score != -infinity()) {
      if constexpr (kSoftmax) {
        weight = natural_exp(score - row.lse);
        tangent = weight * (d_score - row.d_lse);
      } else if constexpr (V::normalize == Normalize::sigmoid) {
        weight = 1.0f / (1.0f + natural_exp(-score));
        tangent = weight * (1.0f - weight) * d_score;
      } else {
        weight = score;
        tangent = d_score;
      }
    }
    shared.weights.at(r, j) = weight;
    shared.d_score.at(r, j) = tangent;
  }

  // What the tangents at the first N sites give.
  template <Root In, int N = kSiteCount<V, In>>
  VICINAL_DEVICE float of_sites(const Query<V::rank>& q, const Key<V::rank>& k, float score, float out,
                                float lse) const {
    if constexpr (N == 0) {
      return 0.0f;
    } else {
      constexpr Site read = kSite<V, In, N - 1>;
      const float before = of_sites<In, N - 1>(q, k, score, out, lse);
      const float* const tangent = a.captured[read.slot].data;
      i64 element = 0;
      float slope = 0.0f;
      V::template site<In, N - 1>(a, q, k, score, out, lse, element, slope);
      if (slope == 0.0f || tangent == nullptr) return before;
      if constexpr (read.dot) {
        const i64 channels = V::template channels<In, N - 1>(a);
        float sum = 0.0f;
#pragma unroll 1
        for (i64 c = 0; c < channels; ++c)
          sum = fmaf(tangent[element + c], V::template factor<In, N - 1>(a, q, k, c), sum);
        return before + slope * sum;
      } else {
        return before + slope * tangent[element];
      }
    }
  }
  // Of what a row reads.
  template <Root In>
  VICINAL_DEVICE float of_row_sites(const Query<V::rank>& q, float out = 0.0f, float lse = 0.0f) const {
    return of_sites<In>(q, Key<V::rank>{}, 0.0f, out, lse);
  }

  VICINAL_DEVICE void store(const Row (&row)[kMine], const Columns& out, Columns& d_out) const {
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const int r = thread_row(i);
      if (!shared.queries.exists(r)) continue;
      const Query<V::rank>& q = shared.queries.query[r];
      if constexpr (V::has_output) {
#pragma unroll
        for (int c = 0; c < Pair::kColumns; ++c) {
          const float x = out[i][c], lse = row[i].lse;
          const float by_out = V::d_output_out(a, q, x, lse), by_lse = V::d_output_lse(a, q, x, lse);
          d_out[i][c] = (by_out == 0.0f ? 0.0f : by_out * d_out[i][c]) +
                        (by_lse == 0.0f ? 0.0f : by_lse * row[i].d_lse) +
                        of_row_sites<Root::output>(q, x, lse);
        }
      }
      if (a.d_out.data != nullptr)
        this->template store_row<ValueDim>(d_out[i], a.d_out, query_offset<V>(a, a.d_out, q));
      if (kSoftmax && a.d_lse.data != nullptr && thread_lane() == 0)
        static_cast<float*>(a.d_lse.data)[query_offset<V>(a, a.d_lse, q)] = row[i].d_lse;
    }
  }

  Shared& own;
};

template <DifferentiatedVariant V, class T, int HeadDim, int ValueDim>
VICINAL_DEVICE void tangents(const typename V::Arguments& a) {
  using Kernel = Tangents<V, T, HeadDim, ValueDim>;
  __shared__ typename Kernel::Shared shared;
  Kernel(a, shared).run();
}

}  // namespace vicinal::backward
