// Gradients of captured tensors and params, whatever their indices: each block walks over some tiles of
// queries, one after the other, and adds what its pairs and rows give to a list of sums of its own; `sums`
// then adds the blocks' lists in order.
//
// Within a block a tile's contributions go through shared memory. Every thread looks at all of them, in
// order, and adds up those for the elements that are its own, one of kThreads: no two threads write one sum,
// and the order is always the same.
#pragma once

#include "vicinal/tile/tile_pair.cuh"

namespace vicinal::backward {

template <DifferentiatedVariant V, class T, class G, int HeadDim, int ValueDim>
class Captured : TilePair<V, T, G, HeadDim, ValueDim> {
  using Pair = TilePair<V, T, G, HeadDim, ValueDim>;
  using Pair::a;
  using Pair::shared;
  static constexpr u32 kNowhere = 0xffffffffu;

 public:
  struct Shared : Pair::Shared {
    u32 element[kTile * kTile];
    float share[kTile * kTile];
    float d_scale[kTile];
  };
  VICINAL_DEVICE Captured(const typename V::Arguments& arguments, Shared& storage)
      : Pair(arguments, storage), own(storage) {}

  // Tiles of queries are dealt out in equal shares of neighbours.
  VICINAL_DEVICE void run() {
    sums = a.partial_sums + blockIdx.x * a.captured_elements;
    for (i64 i = threadIdx.x; i < a.captured_elements; i += kThreads) sums[i] = 0.0f;
    const int heads = static_cast<int>(a.heads), tiles = static_cast<int>(a.tiles.rows);
    const i64 items = a.batch * heads * tiles;
    const i64 end = items * (blockIdx.x + 1) / gridDim.x;
#pragma unroll 1
    for (i64 item = items * blockIdx.x / gridDim.x; item < end; ++item) {
      const int slice = static_cast<int>(item / tiles);
      tile(slice / heads, slice % heads, static_cast<int>(item - static_cast<i64>(slice) * tiles));
    }
  }

 private:
  VICINAL_DEVICE void tile(int b, int h, int number) {
    __syncthreads();
    if (threadIdx.x == 0) shared.tiles.template place<V>(a, number, kTile);
    __syncthreads();
    if (!shared.tiles.has_query()) return;
    this->locate_queries(b, h);
    const int kv_h = shared.queries.query[0].kv_h;
    float d_scale[kMine] = {};
#pragma unroll 1
    for (u32 t = 0; t < shared.tiles.all_tiles; ++t) {
      const bool context = V::has_context && t >= shared.tiles.grid_tiles;
      __syncthreads();
      this->locate_keys(static_cast<int>(context ? t - shared.tiles.grid_tiles : t), context);
      if (!this->template compute<Of::expression>(b, kv_h, context)) continue;
      if constexpr (V::has_context) {
        if (context) {
          add_sites<true, V::template score_sites<true>>();
        } else {
          add_sites<false, V::template score_sites<false>>();
        }
      } else {
        add_sites<false, V::template score_sites<false>>();
      }
      if constexpr (V::scale_sites != 0) add_to_scale(context, d_scale);
    }
    add_row_sites(d_scale);
  }

  VICINAL_DEVICE void contribute(int place, i64 element, float slope, float gradient) {
    const bool counts = slope != 0.0f && gradient != 0.0f;
    own.element[place] = counts ? static_cast<u32>(element) : kNowhere;
    own.share[place] = counts ? gradient * slope : 0.0f;
  }

  // Adds what has been contributed at places [0, count).
  VICINAL_DEVICE void gather(int count) {
    __syncthreads();
#pragma unroll 1
    for (int place = 0; place < count; ++place) {
      const u32 element = own.element[place];
      if (element != kNowhere && element % kThreads == threadIdx.x) sums[element] += own.share[place];
    }
    __syncthreads();
  }

  template <bool Context, int Site>
  VICINAL_DEVICE void add_sites() {
    if constexpr (Site > 0) {
      add_sites<Context, Site - 1>();
#pragma unroll 1
      for (int pair = 0; pair < kMine * kMine; ++pair) {
        const int r = thread_row(pair / kMine), j = thread_key(pair % kMine);
        const Query<V::rank>& q = shared.queries.query[r];
        const Key<V::rank>& k = shared.keys.key[j];
        const float gradient = shared.d_score.at(r, j);
        i64 element = 0;
        float slope = 0.0f;
        if (gradient != 0.0f)
          V::template score_site<Context, Site - 1>(a, q, k, shared.scale * shared.weights.at(r, j), element,
                                                    slope);
        contribute(r * kTile + j, element, slope, gradient);
      }
      gather(kTile * kTile);
    }
  }

  // The scale multiplies the dot product.
  VICINAL_DEVICE void add_to_scale(bool context, float (&d_scale)[kMine]) const {
#pragma unroll 1
    for (int pair = 0; pair < kMine * kMine; ++pair) {
      const int r = thread_row(pair / kMine), j = thread_key(pair % kMine);
      const float gradient = shared.d_score.at(r, j);
      if (gradient == 0.0f) continue;
      const float dot = shared.weights.at(r, j), s = shared.scale * dot;
      const float slope = d_score_of<V>(a, context, shared.queries.query[r], shared.keys.key[j], s);
      const float add = slope == 0.0f ? 0.0f : gradient * slope * dot;
      if (pair / kMine == 0) {
        d_scale[0] += add;
      } else {
        d_scale[1] += add;
      }
    }
  }

  VICINAL_DEVICE void add_row_sites(const float (&d_scale)[kMine]) {
    if constexpr (V::scale_sites != 0) {
#pragma unroll
      for (int i = 0; i < kMine; ++i) {
        const float total = sum_row(d_scale[i]);
        if (thread_lane() == 0) own.d_scale[thread_row(i)] = total;
      }
      __syncthreads();
      add_scale_sites<V::scale_sites>();
    }
    if constexpr (V::sink_sites != 0) add_sink_sites<V::sink_sites>();
    if constexpr (V::output_sites != 0) add_output_sites<V::output_sites>();
  }

  template <int Site>
  VICINAL_DEVICE void add_scale_sites() {
    if constexpr (Site > 0) {
      add_scale_sites<Site - 1>();
      if (const int r = threadIdx.x; r < kTile) {
        i64 element = 0;
        float slope = 0.0f;
        const bool exists = shared.queries.exists(r);
        if (exists) V::template scale_site<Site - 1>(a, shared.queries.query[r], element, slope);
        contribute(r, element, slope, exists ? own.d_scale[r] : 0.0f);
      }
      gather(kTile);
    }
  }

  // A softmax' sink has the share exp(sink - lse) of its row.
  template <int Site>
  VICINAL_DEVICE void add_sink_sites() {
    if constexpr (Site > 0) {
      add_sink_sites<Site - 1>();
      if (const int r = threadIdx.x; r < kTile) {
        i64 element = 0;
        float slope = 0.0f, gradient = 0.0f;
        if (shared.queries.exists(r)) {
          const Query<V::rank>& q = shared.queries.query[r];
          const float sink = V::sink(a, q);
          const float lse = shared.lse[r];  // inf where the sink is
          if (sink != -infinity()) gradient = (sink == lse ? 1.0f : natural_exp(sink - lse)) * shared.term[r];
          V::template sink_site<Site - 1>(a, q, element, slope);
        }
        contribute(r, element, slope, gradient);
      }
      gather(kTile);
    }
  }

  // What the output expression reads; here d_out is asked for as the caller gave it.
  template <int Site>
  VICINAL_DEVICE void add_output_sites() {
    if constexpr (Site > 0) {
      add_output_sites<Site - 1>();
      if (const int r = threadIdx.x; r < kTile) {
        i64 element = 0;
        float total = 0.0f;
        if (shared.queries.exists(r)) {
          const Query<V::rank>& q = shared.queries.query[r];
          const i64 out_at = query_offset<V>(a, a.out, q), d_at = query_offset<V>(a, a.given_d_out, q);
          const float lse = V::normalize == Normalize::softmax ? shared.lse[r] : 0.0f;
#pragma unroll 1
          for (int c = 0; c < ValueDim; ++c) {
            const float out = to_float(static_cast<const T*>(a.out.data)[out_at + c * a.out.dim]);
            const float d = to_float(static_cast<const T*>(a.given_d_out.data)[d_at + c * a.given_d_out.dim]);
            float slope = 0.0f;
            V::template output_site<Site - 1>(a, q, out, lse, element, slope);
            if (slope != 0.0f) total = fmaf(slope, d, total);
          }
        }
        contribute(r, element, 1.0f, total);
      }
      gather(kTile);
    }
  }

  Shared& own;
  float* sums;
};

template <DifferentiatedVariant V, class T, class G, int HeadDim, int ValueDim>
VICINAL_DEVICE void captured(const typename V::Arguments& a) {
  using Kernel = Captured<V, T, G, HeadDim, ValueDim>;
  __shared__ typename Kernel::Shared shared;
  Kernel(a, shared).run();
}

// A thread an element: the blocks' sums, in the order of the blocks.
template <DifferentiatedVariant V>
VICINAL_DEVICE void sums(const typename V::Arguments& a) {
  for (i64 i = blockIdx.x * static_cast<i64>(kThreads) + threadIdx.x; i < a.captured_elements;
       i += static_cast<i64>(gridDim.x) * kThreads) {
    float total = 0.0f;
    for (i64 block = 0; block < a.partial_blocks; ++block)
      total += a.partial_sums[block * a.captured_elements + i];
#pragma unroll 1
    for (int n = 0; n < V::captured; ++n) {
      const CapturedGradient& to = a.captured[n];
      if (i >= to.begin && i < to.begin + to.count && to.data != nullptr) to.data[i - to.begin] = total;
    }
  }
}

}  // namespace vicinal::backward
