// Backward, what every kernel does with a tile of queries and a tile of keys: scores and weights again from
// Q, K and the LSE, the gradients of the weights from d_out and V, and from both the gradients of the scores.
//
// Tiles are 32 by 32; threads form a grid of 16 by 16. A thread's two queries are neighbours, its two keys 16
// apart.
//
// Numbers of what is not kept never spread: what an unkept pair would have comes from no arithmetic but is
// set to 0, and in the products that follow a staged row that holds NaN or Inf is multiplied by what is not 0
// alone.
#pragma once

#include "vicinal/backward_arguments.cuh"
#include "vicinal/online_softmax.cuh"
#include "vicinal/tile/tokens_of_tile.cuh"

namespace vicinal::backward {

constexpr int kSide = 16, kThreads = kSide * kSide, kTile = 32, kMine = kTile / kSide;

template <class Combine>
VICINAL_DEVICE float reduce_row(float x, Combine combine) {
#pragma unroll
  for (int lanes = kSide / 2; lanes > 0; lanes /= 2) x = combine(x, __shfl_xor_sync(~0u, x, lanes));
  return x;
}
VICINAL_DEVICE float sum_row(float x) {
  return reduce_row(x, [](float a, float b) { return a + b; });
}

VICINAL_DEVICE int thread_row(int i) {
  return static_cast<int>(threadIdx.x) / kSide * kMine + i;
}
VICINAL_DEVICE int thread_lane() {
  return static_cast<int>(threadIdx.x) % kSide;
}
VICINAL_DEVICE int thread_key(int c) {
  return thread_lane() + c * kSide;
}

// The offset of a query in any tensor with the queries' tokens.
template <class V>
VICINAL_DEVICE i64 query_offset(const typename V::Arguments& a, const TensorArgument<V::rank>& tensor,
                                const Query<V::rank>& q) {
  i64 offset = q.b * tensor.batch + q.h * tensor.head;
#pragma unroll
  for (int i = 0; i < V::rank; ++i)
    offset += (q.coordinate[i] - static_cast<int>(a.q_axis[i].origin)) * tensor.axis[i];
  return offset;
}

// The number of a query's row.
template <class V>
VICINAL_DEVICE i64 row_number(const typename V::Arguments& a, const Query<V::rank>& q) {
  i64 number = q.b * a.heads + q.h;
#pragma unroll
  for (int i = 0; i < V::rank; ++i)
    number = number * a.q_axis[i].local + (q.coordinate[i] - static_cast<int>(a.q_axis[i].origin));
  return number;
}

template <class V>
VICINAL_DEVICE float d_score_of(const typename V::Arguments& a, bool context, const Query<V::rank>& q,
                                const Key<V::rank>& k, float s) {
  if constexpr (V::has_context) {
    if (context) return V::template d_score<true>(a, q, k, s);
  }
  return V::template d_score<false>(a, q, k, s);
}

// What the gradients in TilePair::Shared::d_score are of.
enum class Of {
  expression,  // the score that the expression gives
  query,       // the dot product with the query, times what divides the key
  key,         // the dot product with the key, times what divides the query
};

// T: elements of Q, K and V; G: of d_out.
template <DifferentiatedVariant V, class T, class G, int HeadDim, int ValueDim>
class TilePair {
 public:
  static constexpr int kRank = V::rank;
  static constexpr int kDepth = 32;  // channels of a product at a time
  static constexpr int kLargest = HeadDim > ValueDim ? HeadDim : ValueDim;
  static constexpr int kWidth = (kLargest + kSide - 1) / kSide * kSide;
  static constexpr int kColumns = kWidth / kSide;
  static constexpr int kStage = kWidth > 128 ? 16 : kTile;  // rows of a product at a time

  struct Shared {
    union {
      struct {
        SharedTile<kTile, kDepth, 4> left, right;
      };
      SharedTile<kStage, kWidth, 0> rows;
    };
    SharedTile<kTile, kTile, 4> weights;  // dot products first
    SharedTile<kTile, kTile, 4> d_score;  // gradients of weights first
    TileRow<kRank> tiles;
    QueryTile<V, kTile> queries;
    KeyTile<V, kTile> keys;
    i64 d_out_offset[kTile];
    float lse[kTile], term[kTile];
    float q_norm[kTile], k_norm[kTile];  // reciprocals
    float scale;
  };

  VICINAL_DEVICE TilePair(const typename V::Arguments& arguments, Shared& storage)
      : a(arguments), shared(storage) {}

  // The queries of shared.tiles.queries, at a batch and head. All threads.
  VICINAL_DEVICE void locate_queries(int b, int h) {
    if (const int r = threadIdx.x; r < kTile) {
      shared.queries.locate(a, shared.tiles, b, h, r);
      const Query<kRank>& q = shared.queries.query[r];
      const bool exists = shared.queries.exists(r);
      shared.d_out_offset[r] = exists ? query_offset<V>(a, a.d_out, q) : kNoRow;
      if (exists) {
        if (V::normalize == Normalize::softmax)
          shared.lse[r] = static_cast<const float*>(a.lse.data)[query_offset<V>(a, a.lse, q)];
        shared.term[r] = a.row_terms[row_number<V>(a, q)];
        shared.queries.q_offset[r] = query_offset<V>(a, a.q, q);  // from the tensor's beginning
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) shared.scale = V::scale(a, shared.queries.query[0]);
  }
  VICINAL_DEVICE void locate_keys(int number, bool context) {
    if (const int j = threadIdx.x; j < kTile) {
      if (V::has_context && context) {
        shared.keys.locate_context(a, number * kTile, j);
      } else {
        shared.keys.locate(a, shared.tiles, number, j);
      }
    }
  }

  // Leaves weights (dot products, of the expression) and gradients of scores in shared memory, 0 where a pair
  // is not kept. False, and nothing of it, where none is.
  template <Of of>
  VICINAL_DEVICE bool compute(int b, int kv_h, bool context) {
    __syncthreads();
    const u32 kept = keep(context);
    if (!__syncthreads_or(kept != 0)) return false;
    const auto queries = row_source<T>(a.q, 0);
    const auto d_out = row_source<G>(a.d_out, 0);
    multiply<HeadDim, V::query_l2norm || V::key_l2norm>(shared.weights, queries, shared.queries.q_offset,
                                                        keys(b, kv_h, context), shared.keys.k_offset);
    multiply<ValueDim, false>(shared.d_score, d_out, shared.d_out_offset, values(b, kv_h, context),
                              shared.keys.v_offset);
    __syncthreads();
#pragma unroll 1
    for (int pair = 0; pair < kMine * kMine; ++pair) weigh<of>(pair, context, (kept >> pair & 1) != 0);
    __syncthreads();
    return true;
  }

  // sum[i][c] += matrix(row i, j) * rows(j, column c), over the rows j of a tile. At: the matrix' element.
  template <class E, int Dim, class At>
  VICINAL_DEVICE void accumulate(float (&sum)[kMine][kColumns], const RowSource<E>& source, const i64* offset,
                                 At at) {
#pragma unroll 1
    for (int first = 0; first < kTile; first += kStage) {
      __syncthreads();
      const float probe = load_rows<kThreads>(shared.rows, source, offset + first, 0, Dim);
      const bool finite = !__syncthreads_or(probe != 0.0f);
#pragma unroll 1
      for (int j = 0; j < kStage; ++j) {
#pragma unroll
        for (int i = 0; i < kMine; ++i) {
          const float factor = at(thread_row(i), first + j);
          if (!finite && factor == 0.0f) continue;
#pragma unroll
          for (int c = 0; c < kColumns; ++c)
            if (thread_lane() + c * kSide < Dim)
              sum[i][c] = fmaf(factor, shared.rows.at(j, thread_lane() + c * kSide), sum[i][c]);
        }
      }
    }
  }

  VICINAL_DEVICE RowSource<T> keys(int b, int kv_h, bool context) const {
    const TensorArgument<kRank>& k = V::has_context && context ? a.context_k : a.k;
    return row_source<T>(k, b * k.batch + kv_h * k.head);
  }
  VICINAL_DEVICE RowSource<T> values(int b, int kv_h, bool context) const {
    const TensorArgument<kRank>& v = V::has_context && context ? a.context_v : a.v;
    return row_source<T>(v, b * v.batch + kv_h * v.head);
  }

  // Gradients of rows as they leave: through the norm of x, of which `reciprocal` is 1 / |x|. A norm at its
  // floor passes nothing on; 0 stands for that of a row that met no tile, whose gradient is 0.
  template <class E, int Dim>
  VICINAL_DEVICE void through_norm(float (&gradient)[kColumns], const RowSource<E>& x, i64 offset,
                                   float reciprocal) const {
    float along = 0.0f;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int column = thread_lane() + c * kSide;
      if (column < Dim && offset != kNoRow)
        along = fmaf(to_float(x.data[offset + column * x.step]) * reciprocal, gradient[c], along);
    }
    along = sum_row(along);
    const bool floored = reciprocal >= 0.999e12f || reciprocal == 0.0f;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int column = thread_lane() + c * kSide;
      if (column < Dim && offset != kNoRow)
        gradient[c] = floored
                          ? 0.0f
                          : (gradient[c] - to_float(x.data[offset + column * x.step]) * reciprocal * along) *
                                reciprocal;
    }
  }

  template <int Dim>
  VICINAL_DEVICE void store_row(const float (&gradient)[kColumns], const TensorArgument<kRank>& tensor,
                                i64 offset) const {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int column = thread_lane() + c * kSide;
      if (column < Dim)
        static_cast<T*>(tensor.data)[offset + column * tensor.dim] = from_float<T>(gradient[c]);
    }
  }

 private:
  VICINAL_DEVICE u32 keep(bool context) const {
    u32 kept = 0;
#pragma unroll 1
    for (int pair = 0; pair < kMine * kMine; ++pair) {
      const int r = thread_row(pair / kMine), k = thread_key(pair % kMine);
      const bool keeps =
          shared.queries.exists(r) && keeps_pair(a, context, shared.queries, r, shared.keys, k);
      kept |= static_cast<u32>(keeps) << pair;
    }
    return kept;
  }

  // <left, right> for the thread's pairs, into the places that this thread alone reads until all meet.
  template <int Dim, bool Norms, class E, class F>
  VICINAL_DEVICE void multiply(SharedTile<kTile, kTile, 4>& result, const RowSource<E>& left,
                               const i64* left_offset, const RowSource<F>& right, const i64* right_offset) {
    float dot[kMine][kMine] = {};
    float squares = 0.0f;
#pragma unroll 1
    for (int begin = 0; begin < Dim; begin += kDepth) {
      const int end = begin + kDepth < Dim ? begin + kDepth : Dim;
      __syncthreads();
      load_rows<kThreads>(shared.left, left, left_offset, begin, end);
      load_rows<kThreads>(shared.right, right, right_offset, begin, end);
      __syncthreads();
#pragma unroll 1
      for (int d = 0; d < end - begin; d += 4) {
        Vector<4> x[kMine];
#pragma unroll
        for (int i = 0; i < kMine; ++i) x[i] = shared.left.template read<4>(thread_row(i), d);
#pragma unroll
        for (int c = 0; c < kMine; ++c) {
          const Vector<4> y = shared.right.template read<4>(thread_key(c), d);
#pragma unroll
          for (int i = 0; i < kMine; ++i) {
#pragma unroll
            for (int e = 0; e < 4; ++e) dot[i][c] = fmaf(x[i].x[e], y.x[e], dot[i][c]);
          }
        }
      }
      // The first 32 threads sum a query each, the next 32 a key.
      if (const int t = threadIdx.x; Norms && t < 2 * kTile) {
        for (int d = 0; d < end - begin; ++d) {
          const float x = t < kTile ? shared.left.at(t, d) : shared.right.at(t - kTile, d);
          squares = fmaf(x, x, squares);
        }
      }
    }
    if constexpr (Norms) {
      const int t = threadIdx.x;
      const float reciprocal = 1.0f / fmaxf(sqrtf(squares), 1e-12f);
      if (t < kTile) {
        shared.q_norm[t] = reciprocal;
      } else if (t < 2 * kTile) {
        shared.k_norm[t - kTile] = reciprocal;
      }
    }
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
#pragma unroll
      for (int c = 0; c < kMine; ++c) result.at(thread_row(i), thread_key(c)) = dot[i][c];
    }
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
  const typename V::Arguments& a;
  Shared& shared;
};

}  // namespace vicinal::backward
