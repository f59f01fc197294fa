// Backward on the FP32 units of any GPU from sm_75 on, in four kernels that follow each other on a stream:
//
//   rows      of every row: its gradient before the output expression, and what its weights share
//   queries   dQ, by tiles of queries, which walk over the keys in their reach
//   keys      dK and dV, by tiles of keys, which walk over the queries that reach them, head by head
//   captured  gradients of captured tensors and params (captured_gradients.cuh), and `sums` after it
//
// Where a plan lists tiles these walk over the listed ones alone; the list of `keys` is the transposed
// plan's. No kernel uses atomics: every sum is one thread's, in one order, so that the same arguments give
// the same bits.
#pragma once

#include "vicinal/ptx/dependent_launch.cuh"
#include "vicinal/tile/gradient_pair.cuh"

namespace vicinal::backward {

// A warp a row. D: elements of the caller's d_out and of out.
template <DifferentiatedVariant V, class D, int ValueDim>
VICINAL_DEVICE void rows(const typename V::Arguments& a) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const i64 queries = token_count(a.q_axis), count = a.batch * a.heads * queries;
  const i64 warps = static_cast<i64>(gridDim.x) * (kThreads / kWarp);
#pragma unroll 1
  for (i64 row = blockIdx.x * static_cast<i64>(kThreads / kWarp) + threadIdx.x / kWarp; row < count;
       row += warps) {
    const i64 slice = row / queries;
    const auto token = token_at(a.q_axis, static_cast<int>(row - slice * queries));
    const auto q =
        query_of<V>(a, static_cast<int>(slice / a.heads), static_cast<int>(slice % a.heads), token);
    const i64 out_at = query_offset<V>(a, a.out, q), d_at = query_offset<V>(a, a.d_out, q);
    const bool softmax = V::normalize == Normalize::softmax;
    const float lse = softmax ? static_cast<const float*>(a.lse.data)[query_offset<V>(a, a.lse, q)] : 0.0f;
    float product = 0.0f, d_lse = 0.0f;
#pragma unroll 1
    for (int c = lane; c < ValueDim; c += kWarp) {
      const float out = to_float(static_cast<const D*>(a.out.data)[out_at + c * a.out.dim]);
      float d = to_float(static_cast<const D*>(a.d_out.data)[d_at + c * a.d_out.dim]);
      if constexpr (V::has_output) {
        const float slope = V::d_output_lse(a, q, out, lse), keeps = V::d_output_out(a, q, out, lse);
        d_lse += slope == 0.0f ? 0.0f : d * slope;
        d = keeps == 0.0f ? 0.0f : d * keeps;
        a.d_rows[row * ValueDim + c] = d;
      }
      product = fmaf(d, out, product);
    }
    product = sum_warp(product);
    d_lse = sum_warp(d_lse);
    if (lane != 0) continue;
    if (softmax && a.d_lse.data != nullptr)
      d_lse += static_cast<const float*>(a.d_lse.data)[query_offset<V>(a, a.d_lse, q)];
    a.row_terms[row] = softmax ? d_lse - product : 0.0f;
  }
}

template <DifferentiatedVariant V, class T, class G, int HeadDim, int ValueDim>
class Queries : GradientPair<V, T, G, HeadDim, ValueDim> {
  using Pair = GradientPair<V, T, G, HeadDim, ValueDim>;
  using Pair::a;
  using Pair::shared;

 public:
  using typename Pair::Shared;
  VICINAL_DEVICE Queries(const typename V::Arguments& arguments, Shared& storage)
      : Pair(arguments, storage) {}

  VICINAL_DEVICE void run() {
    this->each_queries([&](int b, int h, int number) { tile(b, h, number); });
  }

 private:
  VICINAL_DEVICE void tile(int b, int h, int number) {
    if (!this->begin_queries(b, h, number)) return;
    const int kv_h = shared.queries.query[0].kv_h;
    float d_query[kMine][Pair::kColumns] = {};
    float norm[kMine] = {};
    this->each_keys(b, h, number, [&](bool context, bool full) {
      if (!this->template compute<Of::query>(b, kv_h, context, full)) return;
      this->template accumulate<T, HeadDim>(d_query, this->keys(b, kv_h, context), shared.keys.k_offset,
                                            [&](int r, int j) { return shared.d_score.at(r, j); });
      if constexpr (V::query_l2norm) {
#pragma unroll
        for (int i = 0; i < kMine; ++i) norm[i] = shared.q_norm[thread_row(i)];
      }
    });
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const i64 offset = shared.queries.q_offset[thread_row(i)];
      if constexpr (V::query_l2norm)
        this->template through_norm<T, HeadDim>(d_query[i], row_source<T>(a.q, 0), offset, norm[i]);
      if (offset == kNoRow) continue;
      this->template store_row<HeadDim>(d_query[i], a.d_q,
                                        query_offset<V>(a, a.d_q, shared.queries.query[thread_row(i)]));
    }
  }
};

template <DifferentiatedVariant V, class T, class G, int HeadDim, int ValueDim>
class Keys : GradientPair<V, T, G, HeadDim, ValueDim> {
  using Pair = GradientPair<V, T, G, HeadDim, ValueDim>;
  using Pair::a;
  using Pair::shared;
  static constexpr int kRank = V::rank;

 public:
  struct Shared : Pair::Shared {
    Stretch keys[kRank];
    Span reach[kRank];  // of the queries that see some key
    int reach_tiles[kRank];
    u32 all_tiles;
  };
  VICINAL_DEVICE Keys(const typename V::Arguments& arguments, Shared& storage)
      : Pair(arguments, storage), own(storage) {}

  // Walks over (batch, key head, tile of keys); the context's tiles follow the grid's.
  VICINAL_DEVICE void run() {
    const int heads = static_cast<int>(a.kv_heads), grid = static_cast<int>(a.key_rows);
    const int tiles = grid + (V::has_context ? tile_count(static_cast<int>(a.context), kTile) : 0);
    const u32 items = static_cast<u32>(a.batch * heads * tiles);
#pragma unroll 1
    for (u32 item = blockIdx.x; item < items; item += gridDim.x) {
      const int slice = static_cast<int>(item / tiles), number = static_cast<int>(item - slice * tiles);
      tile(slice / heads, slice % heads, {number, tiles, number >= grid});
    }
  }

 private:
  // A tile of keys as a row of the transposed plan; the context's follow the grid's.
  struct Place {
    int number, rows;
    bool context;
  };

  // The tile's own keys, as the only tile of a row, so that they are located like any.
  VICINAL_DEVICE void place_keys(int number) {
    own.all_tiles = 1;
#pragma unroll
    for (int i = kRank - 1; i >= 0; --i) {
      const Axis axis = V::axis(a, i);
      const int origin = static_cast<int>(a.k_axis[i].origin), local = static_cast<int>(a.k_axis[i].local);
      const int extent = static_cast<int>(a.tiles.k[i]), along = rows_along(axis, local, extent);
      const Stretch keys = row_stretch(axis, origin, local, extent, take_digit(number, along, i == 0));
      own.keys[i] = keys;
      Span& span = shared.tiles.span[i];
      span.residue = residue_of(axis, keys);
      span.begin = group_position(axis, span.residue, keys.first);
      span.end = span.begin + keys.count;
      shared.tiles.tiles[i] = 1;
      const int q_origin = static_cast<int>(a.q_axis[i].origin),
                q_local = static_cast<int>(a.q_axis[i].local);
      own.reach[i] = V::neighborhood && keys.count > 0 ? query_span(axis, keys, q_origin, q_local)
                                                       : whole_span(q_origin, q_local);
      own.reach_tiles[i] = own.reach[i].tiles(static_cast<int>(a.tiles.q[i]));
      own.all_tiles *= keys.count > 0 ? own.reach_tiles[i] : 0;
    }
  }

  // A tile of the queries in reach, as a row's.
  VICINAL_DEVICE void place_queries(int number) {
#pragma unroll
    for (int i = kRank - 1; i >= 0; --i) {
      const int extent = static_cast<int>(a.tiles.q[i]);
      const int digit = take_digit(number, own.reach_tiles[i], i == 0);
      const Span& span = own.reach[i];
      shared.tiles.queries[i] = {coordinate_at(V::axis(a, i), span, span.position(extent, digit)),
                                 span.size(extent, digit)};
    }
  }

  // The runs of queries at a head that the row visits, of which there is one where nothing is listed.
  VICINAL_DEVICE RowRuns runs_of_keys(int b, int h, const Place& at) const {
    if (!TileRuns<V>::listed(a)) return {0, 1};
    return a.tiles.row_runs[slice_of(a.tiles, b, h) * at.rows + at.number];
  }

  VICINAL_DEVICE void tile(int b, int kv_h, const Place& at) {
    const bool context = at.context;
    const int number = context ? at.number - static_cast<int>(a.key_rows) : at.number;
    __syncthreads();
    if (threadIdx.x == 0) {
      if (context) {
        own.all_tiles = static_cast<u32>(a.tiles.rows);  // every query
      } else {
        place_keys(number);
      }
    }
    __syncthreads();
    bool any = true;
    if (!context) {
#pragma unroll
      for (int i = 0; i < kRank; ++i) any = any && own.keys[i].count > 0;
    }
    if (!any) return;
    this->locate_keys(context ? number : 0, context);
    float d_key[kMine][Pair::kColumns] = {}, d_value[kMine][Pair::kColumns] = {}, norm[kMine] = {};
    const int group = static_cast<int>(a.heads / a.kv_heads);
#pragma unroll 1
    for (int h = kv_h * group; h < (kv_h + 1) * group; ++h) {
      const RowRuns runs = runs_of_keys(b, h, at);
      TileRuns<V> walk(a, runs);
      u32 tile;
      bool full;
#pragma unroll 1
      while (walk.next(a, own.all_tiles, runs, tile, full))
        add_queries(b, h, kv_h, tile, context, full, d_key, d_value, norm);
    }
    __syncthreads();
    store(b, kv_h, context, d_key, d_value, norm);
  }

  VICINAL_DEVICE void add_queries(int b, int h, int kv_h, u32 t, bool context, bool full,
                                  float (&d_key)[kMine][Pair::kColumns],
                                  float (&d_value)[kMine][Pair::kColumns], float (&norm)[kMine]) {
    __syncthreads();
    if (threadIdx.x == 0) {
      if (context) {
        // A row of queries as the forward pass cuts them; its span of keys is not looked at.
        shared.tiles.template place<V>(a, static_cast<int>(t), kTile);
      } else {
        place_queries(static_cast<int>(t));
      }
    }
    __syncthreads();
    if (!shared.tiles.has_query()) return;
    this->locate_queries(b, h);
    if (!this->template compute<Of::key>(b, kv_h, context, full)) return;
    // A thread's rows are keys now.
    this->template accumulate<T, HeadDim>(d_key, row_source<T>(a.q, 0), shared.queries.q_offset,
                                          [&](int j, int r) { return shared.d_score.at(r, j); });
    this->template accumulate<G, ValueDim>(d_value, row_source<G>(a.d_out, 0), shared.d_out_offset,
                                           [&](int j, int r) { return shared.weights.at(r, j); });
    if constexpr (V::key_l2norm) {
#pragma unroll
      for (int i = 0; i < kMine; ++i) norm[i] = shared.k_norm[thread_row(i)];
    }
  }

  VICINAL_DEVICE void store(int b, int kv_h, bool context, float (&d_key)[kMine][Pair::kColumns],
                            const float (&d_value)[kMine][Pair::kColumns], const float (&norm)[kMine]) const {
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const int j = thread_row(i);
      const i64 from = shared.keys.k_offset[j];
      if constexpr (V::key_l2norm)
        this->template through_norm<T, HeadDim>(d_key[i], this->keys(b, kv_h, context), from, norm[i]);
      if (from == kNoRow) continue;
      const TensorArgument<kRank>& k = V::has_context && context ? a.d_context_k : a.d_k;
      const TensorArgument<kRank>& v = V::has_context && context ? a.d_context_v : a.d_v;
      const Key<kRank>& key = shared.keys.key[j];
      if (k.data != nullptr)
        this->template store_row<HeadDim>(d_key[i], k, key_offset<V>(a, k, b, kv_h, context, key));
      if (v.data != nullptr)
        this->template store_row<ValueDim>(d_value[i], v, key_offset<V>(a, v, b, kv_h, context, key));
    }
  }

  Shared& own;
};

template <DifferentiatedVariant V, class T, class G, int HeadDim, int ValueDim>
VICINAL_DEVICE void queries(const typename V::Arguments& a) {
  using Kernel = Queries<V, T, G, HeadDim, ValueDim>;
  __shared__ typename Kernel::Shared shared;
  await_last_kernel();
  let_next_kernel_start();
  if (a.only_if == nullptr || *a.only_if != 0) Kernel(a, shared).run();
}
template <DifferentiatedVariant V, class T, class G, int HeadDim, int ValueDim>
VICINAL_DEVICE void keys(const typename V::Arguments& a) {
  using Kernel = Keys<V, T, G, HeadDim, ValueDim>;
  __shared__ typename Kernel::Shared shared;
  await_last_kernel();
  if (a.only_if == nullptr || *a.only_if != 0) Kernel(a, shared).run();
}

}  // namespace vicinal::backward
