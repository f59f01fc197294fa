// The portable kernel: tiled attention on the FP32 units of any GPU from sm_75 on.
//
// A block owns a tile of TileQ queries of one batch and head and walks over the tiles of TileK keys that the
// plan has for it. Tiles are boxes of the grid, whose extents are run-time arguments. Per tile of keys:
//
//   keep      which pairs does the variant keep?             one bit a pair; a tile without any ends here,
//                                                            and a tile that is proved full need not ask
//   multiply  scores = Q * K^T                               through shared memory in chunks of the head dim
//   weigh     scores -> variant's score -> weights           online softmax; weights go to shared memory
//   gather    out += weights * V                             through shared memory in stages of some keys
//
// and `finish` divides by the softmax's denominator and stores. Threads form a grid of 16 by 16. A thread's
// rows are neighbours; its keys lie 16 apart, so that a half-warp reads 16 neighbouring keys without bank
// conflicts, shares its rows, and reduces over a row by shuffles.
//
// Numbers of a key that a query does not keep never reach that query. Scores are selected by the kept bits.
// In the last product an unkept pair has the weight 0, which is enough while V is finite; a stage of V that
// holds NaN or Inf takes a slow path that skips unkept pairs one by one.
#pragma once

#include "vicinal/online_softmax.cuh"
#include "vicinal/tile/tokens_of_tile.cuh"

namespace vicinal::portable {

constexpr int kRowThreads = 16, kColumnThreads = 16;
constexpr int kThreads = kRowThreads * kColumnThreads;

// Over the 16 threads that share a row.
template <class Combine>
VICINAL_DEVICE float reduce_row(float x, Combine combine) {
#pragma unroll
  for (int lanes = kColumnThreads / 2; lanes > 0; lanes /= 2) x = combine(x, __shfl_xor_sync(~0u, x, lanes));
  return x;
}

// The most multiples of 8, at most 64, that cut the head dim into equal chunks (the last may be shorter).
constexpr int chunk_depth(int head_dim) {
  const int chunks = (head_dim + 63) / 64;
  return ((head_dim + chunks - 1) / chunks + 7) / 8 * 8;
}

template <AttentionVariant V, class T, int HeadDim, int ValueDim, int TileQ, int TileK>
class Forward {
  static_assert(HeadDim % 8 == 0 && HeadDim >= 8 && HeadDim <= 256,
                "head dims are multiples of 8 from 8 to 256");
  static_assert(ValueDim % 8 == 0 && ValueDim >= 8 && ValueDim <= 256,
                "value dims are multiples of 8 from 8 to 256");
  static_assert(TileQ == 16 || TileQ == 32 || TileQ == 64, "a tile has 16, 32 or 64 queries");
  static_assert(TileK == 16 || TileK == 32 || TileK == 64, "a tile has 16, 32 or 64 keys");

  static constexpr int kRank = V::rank;
  static constexpr int kDepth = chunk_depth(HeadDim);
  // Of one thread: rows, keys, and value columns in groups of kVector neighbours.
  static constexpr int kRows = TileQ / kRowThreads;
  static constexpr int kKeys = TileK / kColumnThreads;
  static constexpr int kVector = ValueDim % 64 == 0 ? 4 : ValueDim % 32 == 0 ? 2 : 1;
  static constexpr int kGroups = (ValueDim + kColumnThreads * kVector - 1) / (kColumnThreads * kVector);
  static constexpr int kColumns = kGroups * kVector;
  // Of the block: value columns with the padding of the last group, and how many values are staged at a time.
  static constexpr int kWidth = kColumns * kColumnThreads;
  static constexpr int kFits = kWidth <= 64 ? 64 : kWidth <= 128 ? 32 : 16;
  static constexpr int kStage = kFits < TileK ? kFits : TileK;
  // Rows of a thread that are stored at a time.
  static constexpr int kPass = kRows == 4 && kWidth > 128 ? 2 : kRows;

 public:
  struct Shared {
    union {
      struct {
        SharedTile<TileQ, kDepth, 4> q;
        SharedTile<TileK, kDepth, 4> k;
      };
      struct {
        SharedTile<TileQ, TileK, 4> weights;  // scores first
        SharedTile<kStage, kWidth, 0> v;
      };
      SharedTile<kPass * kRowThreads, kWidth, 0> out;
    };
    TileRow<kRank> tiles;
    RowRuns runs;  // of the list
    QueryTile<V, TileQ> queries;
    KeyTile<V, TileK> keys;
    float scale;
    float q_norm[TileQ], k_norm[TileK];  // reciprocals
    float lse[TileQ];
    unsigned short kept[TileQ][kKeys];  // a bit a key; written only for the slow path
  };
  static_assert(sizeof(Shared) <= 48 * 1024, "a block has 48 KiB of static shared memory");

  VICINAL_DEVICE Forward(const typename V::Arguments& arguments, Shared& storage)
      : a(arguments), shared(storage) {}

  // Walks over (batch, head, tile of queries), tiles of one head next to each other, since they share keys.
  VICINAL_DEVICE void run() {
    const int heads = static_cast<int>(a.heads), tiles = static_cast<int>(a.tiles.rows);
    // Below 2^32, as the host checks: a 64-bit division is long.
    const u32 items = static_cast<u32>(a.batch * heads * tiles);
#pragma unroll 1
    for (u32 item = blockIdx.x; item < items; item += gridDim.x) {
      const int slice = static_cast<int>(item / tiles);  // a batch and a head
      const int number = static_cast<int>(item - slice * tiles);
      if (!start(slice / heads, slice % heads, number)) continue;
      walk();
      finish();
    }
  }

 private:
  VICINAL_DEVICE void walk() {
    TileWalk<V> tiles(a, shared.runs);
#pragma unroll 1
    for (Visit tile; tiles.next(a, shared.tiles, shared.runs, tile);) {
      if (const int j = threadIdx.x; j < TileK) {
        if (V::has_context && tile.context) {
          shared.keys.locate_context(a, tile.number * TileK, j);
        } else {
          shared.keys.locate(a, shared.tiles, tile.number, j);
        }
      }
      visit(tile.context, tile.full);
    }
  }

  VICINAL_DEVICE void visit(bool context, bool full) {
    __syncthreads();
    u32 kept = full ? (1ull << (kRows * kKeys)) - 1 : keep(context);
    if (!full && !__syncthreads_or(kept != 0)) return;
    multiply(context ? source(a.context_k) : source(a.k));
    kept = weigh(context, kept);
    gather(context ? source(a.context_v) : source(a.v), kept);
  }

  // A thread's rows and keys, as rows and columns of the tile.
  VICINAL_DEVICE int row(int i) const {
    return static_cast<int>(threadIdx.x) / kColumnThreads * kRows + i;
  }
  VICINAL_DEVICE int lane() const {
    return static_cast<int>(threadIdx.x) % kColumnThreads;
  }
  VICINAL_DEVICE int key(int c) const {
    return lane() + c * kColumnThreads;
  }
  VICINAL_DEVICE int column(int g) const {
    return (g * kColumnThreads + lane()) * kVector;
  }

  // The queries of a tile. False where a dilation group has fewer tiles than the largest: no query then.
  VICINAL_DEVICE bool start(int b, int h, int number) {
    if (threadIdx.x == 0) {
      shared.runs = runs_of<V>(a, b, h, number);
      shared.tiles.template place<V>(a, number, TileK);
    }
    __syncthreads();
    if (!shared.tiles.has_query()) {
      __syncthreads();
      return false;
    }
    if (const int r = threadIdx.x; r < TileQ) shared.queries.locate(a, shared.tiles, b, h, r);
    __syncthreads();
    if (threadIdx.x == 0) shared.scale = V::scale(a, slice());
    const float sink = V::has_sink ? V::sink(a, slice()) : -infinity();
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      state[i].start(sink, lane() == 0);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) out[i][c] = 0.0f;
    }
    return true;
  }

  // Of the tile's first query, which is always there: batch and heads of all of them.
  VICINAL_DEVICE const Query<kRank>& slice() const {
    return shared.queries.query[0];
  }

  // The thread's pairs are numbered row by row. Loops over pairs that evaluate the variant are not unrolled:
  // a long expression is then compiled once.
  VICINAL_DEVICE u32 keep(bool context) const {
    u32 kept = 0;
#pragma unroll 1
    for (int pair = 0; pair < kRows * kKeys; ++pair) {
      const int r = row(pair / kKeys), k = key(pair % kKeys);
      kept |= static_cast<u32>(keeps_pair(a, context, shared.queries, r, shared.keys, k)) << pair;
    }
    return kept;
  }

  // Keys or values at the block's batch and head.
  VICINAL_DEVICE RowSource<T> source(const TensorArgument<kRank>& tensor) const {
    return row_source<T>(tensor, slice().b * tensor.batch + slice().kv_h * tensor.head);
  }

  // Leaves the scaled dot products in shared.weights, each written and later read by the same thread.
  VICINAL_DEVICE void multiply(const RowSource<T>& tile_keys) {
    const auto queries = row_source<T>(a.q, slice().b * a.q.batch + slice().h * a.q.head);
    float dot[kRows][kKeys] = {};
    float squares = 0.0f;
#pragma unroll 1
    for (int begin = 0; begin < HeadDim; begin += kDepth) {
      const int end = HeadDim % kDepth == 0 || begin + kDepth < HeadDim ? begin + kDepth : HeadDim;
      load_rows<kThreads>(shared.q, queries, shared.queries.q_offset, begin, end);
      load_rows<kThreads>(shared.k, tile_keys, shared.keys.k_offset, begin, end);
      __syncthreads();
      add_product(dot, end - begin);
      if constexpr (V::query_l2norm || V::key_l2norm) squares = add_squares(squares, end - begin);
      __syncthreads();
    }
    if constexpr (V::query_l2norm || V::key_l2norm) {
      store_norm(squares);
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int c = 0; c < kKeys; ++c) {
        float s = dot[i][c];
        if constexpr (V::query_l2norm) s *= shared.q_norm[row(i)];
        if constexpr (V::key_l2norm) s *= shared.k_norm[key(c)];
        shared.weights.at(row(i), key(c)) = shared.scale * s;
      }
    }
  }

  VICINAL_DEVICE void add_product(float (&dot)[kRows][kKeys], int depth) const {
#pragma unroll 1
    for (int d = 0; d < depth; d += 4) {
      Vector<4> q[kRows];
#pragma unroll
      for (int i = 0; i < kRows; ++i) q[i] = shared.q.template read<4>(row(i), d);
#pragma unroll
      for (int c = 0; c < kKeys; ++c) {
        const Vector<4> k = shared.k.template read<4>(key(c), d);
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) dot[i][c] = fmaf(q[i].x[j], k.x[j], dot[i][c]);
        }
      }
    }
  }

  // The first TileQ threads each sum one query, the next TileK one key.
  static_assert(TileQ + TileK <= kThreads);
  VICINAL_DEVICE float add_squares(float squares, int depth) const {
    const int t = threadIdx.x;
    if (t >= TileQ + TileK) return squares;
    for (int d = 0; d < depth; d += 4) {
      const Vector<4> x =
          t < TileQ ? shared.q.template read<4>(t, d) : shared.k.template read<4>(t - TileQ, d);
#pragma unroll
      for (int j = 0; j < 4; ++j) squares = fmaf(x.x[j], x.x[j], squares);
    }
    return squares;
  }

  VICINAL_DEVICE void store_norm(float squares) {
    const int t = threadIdx.x;
    const float reciprocal = 1.0f / fmaxf(sqrtf(squares), 1e-12f);
    if (t < TileQ) {
      shared.q_norm[t] = reciprocal;
    } else if (t < TileQ + TileK) {
      shared.k_norm[t - TileQ] = reciprocal;
    }
  }

  // Scores to weights. Returns the pairs that are still kept: a score of -inf drops out here.
  VICINAL_DEVICE u32 weigh(bool context, u32 kept) {
#pragma unroll 1
    for (int pair = 0; pair < kRows * kKeys; ++pair) {
      const int r = row(pair / kKeys), k = key(pair % kKeys);
      float s = -infinity();
      if (kept >> pair & 1) {
        s = score_of<V>(a, context, shared.queries.query[r], shared.keys.key[k], shared.weights.at(r, k));
        if (s == -infinity()) kept &= ~(1u << pair);
      }
      shared.weights.at(r, k) = s;
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      float largest = -infinity();
#pragma unroll
      for (int c = 0; c < kKeys; ++c) largest = fmaxf(largest, shared.weights.at(row(i), key(c)));
      const float factor = state[i].raise(reduce_row(largest, [](float x, float y) { return fmaxf(x, y); }));
#pragma unroll
      for (int c = 0; c < kKeys; ++c) {
        float& weight = shared.weights.at(row(i), key(c));
        weight = state[i].weigh(weight);
      }
#pragma unroll
      for (int c = 0; c < kColumns; ++c) out[i][c] *= factor;
    }
    return kept;
  }

  VICINAL_DEVICE void gather(const RowSource<T>& values, u32 kept) {
    bool published = false;
#pragma unroll 1
    for (int first = 0; first < TileK; first += kStage) {
      const float probe = load_rows<kThreads>(shared.v, values, shared.keys.v_offset + first, 0, ValueDim);
      if (!__syncthreads_or(probe != 0.0f)) {
        add_values(first);
      } else {
        if (!published) publish(kept);
        published = true;
        add_kept_values(first);
      }
      __syncthreads();
    }
  }

  VICINAL_DEVICE void add_values(int first) {
#pragma unroll 1
    for (int j = 0; j < kStage; j += 4) {
      Vector<4> weight[kRows];
#pragma unroll
      for (int i = 0; i < kRows; ++i) weight[i] = shared.weights.template read<4>(row(i), first + j);
#pragma unroll
      for (int jj = 0; jj < 4; ++jj) {
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          const auto v = shared.v.template read<kVector>(j + jj, column(g));
#pragma unroll
          for (int i = 0; i < kRows; ++i) {
#pragma unroll
            for (int c = 0; c < kVector; ++c) {
              out[i][g * kVector + c] = fmaf(weight[i].x[jj], v.x[c], out[i][g * kVector + c]);
            }
          }
        }
      }
    }
  }

  // Makes the kept bits of all threads known to all, a half-warp at a time.
  VICINAL_DEVICE void publish(u32 kept) {
    const int half = threadIdx.x & kColumnThreads;
#pragma unroll 1
    for (int pair = 0; pair < kRows * kKeys; ++pair) {
      const u32 bits = __ballot_sync(~0u, kept >> pair & 1);
      if (lane() == 0)
        shared.kept[row(pair / kKeys)][pair % kKeys] = static_cast<unsigned short>(bits >> half);
    }
    __syncthreads();
  }

  VICINAL_DEVICE void add_kept_values(int first) {
#pragma unroll 1
    for (int j = 0; j < kStage; ++j) {
      const int k = first + j;
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        if (!(shared.kept[row(i)][k / kColumnThreads] >> k % kColumnThreads & 1)) continue;
        const float weight = shared.weights.at(row(i), k);
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          out[i][c] = fmaf(weight, shared.v.at(j, column(c / kVector) + c % kVector), out[i][c]);
        }
      }
    }
  }

  // Through shared memory, so that neighbouring threads store neighbouring elements and the output hook is
  // compiled once. As many rows go at a time as fit.
  VICINAL_DEVICE void finish() {
    float norm[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float total = reduce_row(state[i].total(), [](float x, float y) { return x + y; });
      norm[i] = state[i].norm(total);
      if (lane() == 0) shared.lse[row(i)] = state[i].lse(total);
    }
#pragma unroll
    for (int first = 0; first < kRows; first += kPass) {
#pragma unroll
      for (int i = 0; i < kPass; ++i) {
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          Vector<kVector> x;
#pragma unroll
          for (int c = 0; c < kVector; ++c) x.x[c] = out[first + i][g * kVector + c] * norm[first + i];
          shared.out.write(row(first + i) / kRows * kPass + i, column(g), x);
        }
      }
      __syncthreads();
      store(first);
      __syncthreads();
    }
  }

  VICINAL_DEVICE void store(int first) const {
#pragma unroll 1
    for (int i = threadIdx.x; i < kPass * kRowThreads * ValueDim; i += kThreads) {
      const int staged = i / ValueDim, x = i % ValueDim;
      const int r = staged / kPass * kRows + first + staged % kPass;
      if (!shared.queries.exists(r)) continue;
      const float value = shared.out.at(staged, x), lse = shared.lse[r];
      const Query<kRank>& q = shared.queries.query[r];
      T* const to = static_cast<T*>(a.out.data) + slice().b * a.out.batch + slice().h * a.out.head +
                    shared.queries.out_offset[r];
      to[x * a.out.dim] = from_float<T>(V::has_output ? V::output(a, q, value, lse) : value);
    }
    if (V::normalize != Normalize::softmax || a.lse.data == nullptr || first != 0) return;
    if (const int r = threadIdx.x; r < TileQ && shared.queries.exists(r)) {
      float* const to = static_cast<float*>(a.lse.data) + slice().b * a.lse.batch + slice().h * a.lse.head;
      to[shared.queries.lse_offset[r]] = shared.lse[r];
    }
  }

  const typename V::Arguments& a;
  Shared& shared;
  float out[kRows][kColumns];
  RowWeights<V::normalize> state[kRows];
};

template <AttentionVariant V, class T, int HeadDim, int ValueDim, int TileQ, int TileK>
VICINAL_DEVICE void forward(const typename V::Arguments& a) {
  using Kernel = Forward<V, T, HeadDim, ValueDim, TileQ, TileK>;
  __shared__ typename Kernel::Shared shared;
  Kernel(a, shared).run();
}

}  // namespace vicinal::portable
