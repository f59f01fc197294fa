// Backward, what every kernel does with a tile of queries and a tile of keys: scores and weights again from
// Q, K and the LSE, the gradients of the weights from d_out and V, and from both the gradients of the scores.
#pragma once

#include "vicinal/tile/tile_pair.cuh"

namespace vicinal::backward {

// What the gradients in GradientPair::Shared::d_score are of.
enum class Of {
  expression,  // the score that the expression gives
  query,       // the dot product with the query, times what divides the key
  key,         // the dot product with the key, times what divides the query
};

// T: elements of Q, K and V; G: of d_out.
template <DifferentiatedVariant V, class T, class G, int HeadDim, int ValueDim>
class GradientPair : public TilePair<V, T, HeadDim, ValueDim> {
 public:
  using Base = TilePair<V, T, HeadDim, ValueDim>;
  using Base::a;
  using Base::kRank;

  struct Shared : Base::Shared {
    i64 d_out_offset[kTile];
    float lse[kTile], term[kTile];
  };

  VICINAL_DEVICE GradientPair(const typename V::Arguments& arguments, Shared& storage)
      : Base(arguments, storage), shared(storage) {}

  VICINAL_DEVICE bool begin_queries(int b, int h, int number) {
    if (!Base::begin_queries(b, h, number)) return false;
    read_rows();
    return true;
  }
  VICINAL_DEVICE void locate_queries(int b, int h) {
    Base::locate_queries(b, h);
    read_rows();
  }

  // Leaves weights (dot products, of the expression) and gradients of scores in shared memory, 0 where a pair
  // is not kept. False, and nothing of it, where none is.
  template <Of of>
  VICINAL_DEVICE bool compute(int b, int kv_h, bool context, bool full) {
    __syncthreads();
    const u32 kept = this->keep(context, full);
    if (!__syncthreads_or(kept != 0)) return false;
    multiply_into<HeadDim, V::query_l2norm || V::key_l2norm>(
        shared.weights, row_source<T>(a.q, 0), shared.queries.q_offset, this->keys(b, kv_h, context),
        shared.keys.k_offset);
    multiply_into<ValueDim, false>(shared.d_score, row_source<G>(a.d_out, 0), shared.d_out_offset,
                                   this->values(b, kv_h, context), shared.keys.v_offset);
    __syncthreads();
#pragma unroll 1
    for (int pair = 0; pair < kMine * kMine; ++pair) weigh<of>(pair, context, (kept >> pair & 1) != 0);
    __syncthreads();
    return true;
  }

 private:
  // Of the queries that have been located: what their weights share. Read after the next barrier.
  VICINAL_DEVICE void read_rows() {
    const int r = threadIdx.x;
    if (r >= kTile) return;
    const Query<kRank>& q = shared.queries.query[r];
    const bool exists = shared.queries.exists(r);
    shared.d_out_offset[r] = exists ? query_offset<V>(a, a.d_out, q) : kNoRow;
    if (!exists) return;
    if (V::normalize == Normalize::softmax)
      shared.lse[r] = static_cast<const float*>(a.lse.data)[query_offset<V>(a, a.lse, q)];
    shared.term[r] = a.row_terms[row_number<V>(a, q)];
  }

  template <int Dim, bool Norms, class E, class F>
  VICINAL_DEVICE void multiply_into(SharedTile<kTile, kTile, 4>& result, const RowSource<E>& left,
                                    const i64* left_offset, const RowSource<F>& right,
                                    const i64* right_offset) {
    float dot[kMine][kMine] = {};
    this->template multiply<Dim, Norms>(dot, left, left_offset, right, right_offset);
    this->put(result, dot);
  }

  template <Of of>
  VICINAL_DEVICE void weigh(int pair, bool context, bool kept) {
    const int r = thread_row(pair / kMine), j = thread_key(pair % kMine);
    float weight = 0.0f, gradient = 0.0f;
    if (kept) {
      float dot = shared.weights.at(r, j);
      if constexpr (V::query_l2norm) dot *= shared.q_norm[r];
      if constexpr (V::key_l2norm) dot *= shared.k_norm[j];
      if constexpr (of == Of::expression) shared.weights.at(r, j) = dot;
      const float s = shared.scale * dot;
      const Query<kRank>& q = shared.queries.query[r];
      const Key<kRank>& k = shared.keys.key[j];
      const float score = score_of<V>(a, context, q, k, s);
      if (score != -infinity()) {
        const float d_weight = shared.d_score.at(r, j);
        if constexpr (V::normalize == Normalize::softmax) {
          weight = natural_exp(score - shared.lse[r]);
          gradient = weight * (d_weight + shared.term[r]);
        } else if constexpr (V::normalize == Normalize::sigmoid) {
          weight = 1.0f / (1.0f + natural_exp(-score));
          gradient = weight * (1.0f - weight) * d_weight;
        } else {
          weight = score;
          gradient = d_weight;
        }
        if constexpr (of != Of::expression) {
          // A slope of 0 is that of a branch that was not taken: nothing passes, not even NaN.
          const float slope = d_score_of<V>(a, context, q, k, s);
          gradient = slope == 0.0f ? 0.0f : gradient * slope * shared.scale;
          if constexpr (of == Of::query && V::key_l2norm) gradient *= shared.k_norm[j];
          if constexpr (of == Of::key && V::query_l2norm) gradient *= shared.q_norm[r];
        }
      }
    }
    // Who asks for the expression's gradients goes on with the dot products.
    if constexpr (of != Of::expression) shared.weights.at(r, j) = weight;
    shared.d_score.at(r, j) = gradient;
  }

 protected:
  Shared& shared;
};

}  // namespace vicinal::backward
