// Derivatives on FP32 units, what every kernel does with a tile of queries and the tiles of keys that it
// visits: products of rows, which pairs are kept, and sums of rows weighted by what became of the products.
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

constexpr int kWarp = 32;
VICINAL_DEVICE float sum_warp(float x) {
#pragma unroll
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(~0u, x, lanes);
  return x;
}

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

// query_offset() for a key, of the grid or of the context.
template <class V>
VICINAL_DEVICE i64 key_offset(const typename V::Arguments& a, const TensorArgument<V::rank>& tensor, int b,
                              int kv_h, bool context, const Key<V::rank>& k) {
  i64 offset = b * tensor.batch + kv_h * tensor.head;
  if (context) return offset + k.position * tensor.axis[0];
#pragma unroll
  for (int i = 0; i < V::rank; ++i)
    offset += (k.coordinate[i] - static_cast<int>(a.k_axis[i].origin)) * tensor.axis[i];
  return offset;
}

template <class V>
VICINAL_DEVICE float d_score_of(const typename V::Arguments& a, bool context, const Query<V::rank>& q,
                                const Key<V::rank>& k, float s) {
  if constexpr (V::has_context) {
    if (context) return V::template d_score<true>(a, q, k, s);
  }
  return V::template d_score<false>(a, q, k, s);
}

// T: elements of Q, K and V.
template <DifferentiatedVariant V, class T, int HeadDim, int ValueDim>
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
    SharedTile<kTile, kTile, 4> d_score;  // differentials of weights first
    TileRow<kRank> tiles;
    QueryTile<V, kTile> queries;
    KeyTile<V, kTile> keys;
    float q_norm[kTile], k_norm[kTile];  // reciprocals
    float scale;
  };

  VICINAL_DEVICE TilePair(const typename V::Arguments& arguments, Shared& storage)
      : a(arguments), shared(storage) {}

  // visit(b, h, number) at the tiles of queries that fall to the block; any number of blocks shares them.
  template <class Visitor>
  VICINAL_DEVICE void each_queries(Visitor visit) const {
    const int heads = static_cast<int>(a.heads), tiles = static_cast<int>(a.tiles.rows);
    const u32 items = static_cast<u32>(a.batch * heads * tiles);
#pragma unroll 1
    for (u32 item = blockIdx.x; item < items; item += gridDim.x) {
      const int slice = static_cast<int>(item / tiles);
      visit(slice / heads, slice % heads, static_cast<int>(item - slice * tiles));
    }
  }
  // A tile of queries at a batch and head. False, and nothing of it, where it has no query. All threads.
  VICINAL_DEVICE bool begin_queries(int b, int h, int number) {
    __syncthreads();
    if (threadIdx.x == 0) shared.tiles.template place<V>(a, number, kTile);
    __syncthreads();
    if (!shared.tiles.has_query()) return false;
    locate_queries(b, h);
    return true;
  }
  // visit(context, full) at each tile of keys that the plan lists for these queries, or that is in their
  // reach. `full`: every pair of tokens that are there is kept.
  template <class Visitor>
  VICINAL_DEVICE void each_keys(int b, int h, int number, Visitor visit) {
    const RowRuns runs = runs_of<V>(a, b, h, number);
    TileWalk<V> walk(a, runs);
    Visit at;
#pragma unroll 1
    while (walk.next(a, shared.tiles, runs, at)) {
      __syncthreads();
      locate_keys(at.number, at.context);
      visit(at.context, at.full);
    }
  }

  // The queries of shared.tiles.queries, at a batch and head. All threads.
  VICINAL_DEVICE void locate_queries(int b, int h) {
    if (const int r = threadIdx.x; r < kTile) {
      shared.queries.locate(a, shared.tiles, b, h, r);
      if (shared.queries.exists(r))  // from the tensor's beginning
        shared.queries.q_offset[r] = query_offset<V>(a, a.q, shared.queries.query[r]);
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

  // A bit for each of the thread's pairs.
  VICINAL_DEVICE u32 keep(bool context, bool full) const {
    u32 kept = 0;
#pragma unroll 1
    for (int pair = 0; pair < kMine * kMine; ++pair) {
      const int r = thread_row(pair / kMine), k = thread_key(pair % kMine);
      const bool keeps =
          shared.queries.exists(r) &&
          (full ? shared.keys.exists(k) : keeps_pair(a, context, shared.queries, r, shared.keys, k));
      kept |= static_cast<u32>(keeps) << pair;
    }
    return kept;
  }

  // dot += <left, right> for the thread's pairs. Norms: of both, on the way.
  template <int Dim, bool Norms, class E, class F>
  VICINAL_DEVICE void multiply(float (&dot)[kMine][kMine], const RowSource<E>& left, const i64* left_offset,
                               const RowSource<F>& right, const i64* right_offset) {
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
  }

  // To places that this thread alone reads until all meet.
  VICINAL_DEVICE static void put(SharedTile<kTile, kTile, 4>& result, const float (&dot)[kMine][kMine]) {
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
#pragma unroll
      for (int c = 0; c < kMine; ++c) result.at(thread_row(i), thread_key(c)) = dot[i][c];
    }
  }

 protected:
  const typename V::Arguments& a;
  Shared& shared;
};

}  // namespace vicinal::backward
