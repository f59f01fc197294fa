// Gradients of captured tensors and params: each block walks over some tiles of queries, one after the other,
// and adds what its pairs and rows give to a list of sums of its own; `sums` then adds the blocks' lists in
// order.
#pragma once

#include "vicinal/tile/captured_sums.cuh"
#include "vicinal/tile/gradient_pair.cuh"

namespace vicinal::backward {

// Whether a site's shares stay in registers until a tile of queries has met all of its keys.
VICINAL_DEVICE constexpr bool waits(const Site& site) {
  return !site.dot && (site.adding == Adding::head || site.adding == Adding::row);
}

template <DifferentiatedVariant V, class T, class G, int HeadDim, int ValueDim>
class Captured : GradientPair<V, T, G, HeadDim, ValueDim> {
  using Pair = GradientPair<V, T, G, HeadDim, ValueDim>;
  using Pair::a;
  using Pair::shared;
  static constexpr int kGrid = kSiteCount<V, Root::score>, kContext = kSiteCount<V, Root::context_score>;

 public:
  struct Shared : Pair::Shared {
    typename CapturedSums<V::rank>::Shared sums;
    float d_scale[kTile];
  };
  VICINAL_DEVICE Captured(const typename V::Arguments& arguments, Shared& storage)
      : Pair(arguments, storage),
        own(storage),
        block_sums(a.partial_sums + blockIdx.x * a.captured_elements),
        sums(a.tiles, storage.sums, block_sums) {}

  // Tiles of queries are dealt out in equal shares of neighbours. Sums in place ask for all heads of a tile
  // in one share: nobody else then adds to what its pairs read.
  VICINAL_DEVICE void run() {
    for (i64 i = threadIdx.x; i < a.captured_elements; i += kThreads) block_sums[i] = 0.0f;
    const int heads = static_cast<int>(a.heads), slices = static_cast<int>(a.batch) * heads;
    constexpr bool kWhole = sums_in_place<V, Root::score>() || sums_in_place<V, Root::context_score>();
    const i64 size = kWhole ? slices : 1, shares = a.tiles.rows * slices / size;
    const i64 end = shares * (blockIdx.x + 1) / gridDim.x * size;
#pragma unroll 1
    for (i64 item = shares * blockIdx.x / gridDim.x * size; item < end; ++item) {
      const int number = static_cast<int>(item / slices), slice = static_cast<int>(item % slices);
      tile(slice / heads, slice % heads, number);
    }
  }

 private:
  // Of the sites that wait, by the thread's queries.
  struct Waiting {
    float grid[kGrid == 0 ? 1 : kGrid][kMine], context[kContext == 0 ? 1 : kContext][kMine];
  };

  VICINAL_DEVICE void tile(int b, int h, int number) {
    if (!this->begin_queries(b, h, number)) return;
    const int kv_h = shared.queries.query[0].kv_h;
    Waiting waiting = {};
    float d_scale[kMine] = {};
    this->each_keys(b, h, number, [&](bool context, bool full) {
      if (!this->template compute<Of::expression>(b, kv_h, context, full)) return;
      if (V::has_context && context) {
        add_sites<Root::context_score, kContext>(waiting.context);
      } else {
        add_sites<Root::score, kGrid>(waiting.grid);
      }
      if constexpr (kSiteCount<V, Root::scale> != 0) add_to_scale(context, d_scale);
    });
    add_waiting<Root::score, kGrid>(waiting.grid);
    add_waiting<Root::context_score, kContext>(waiting.context);
    add_rows(d_scale);
  }

  template <Root In, int N, int Size>
  VICINAL_DEVICE void add_sites(float (&waiting)[Size][kMine]) {
    if constexpr (N > 0) {
      add_sites<In, N - 1>(waiting);
      add_site<In, N - 1>(waiting[N - 1]);
    }
  }

  template <Root In, int N>
  VICINAL_DEVICE void add_site(float (&waiting)[kMine]) {
    constexpr Site read = kSite<V, In, N>;
    const i64 begin = a.captured[read.slot].begin;
#pragma unroll 1
    for (int pair = 0; pair < kMine * kMine; ++pair) {
      const int r = thread_row(pair / kMine), j = thread_key(pair % kMine);
      const float gradient = shared.d_score.at(r, j);
      i64 element = 0;
      float slope = 0.0f;
      if (gradient != 0.0f)
        V::template site<In, N>(a, shared.queries.query[r], shared.keys.key[j],
                                shared.scale * shared.weights.at(r, j), 0.0f, 0.0f, element, slope);
      const float share = slope == 0.0f ? 0.0f : gradient * slope;
      if constexpr (waits(read)) {
        if (pair / kMine == 0) {
          waiting[0] += share;
        } else {
          waiting[1] += share;
        }
      } else {
        sums.contribute(r, j, begin + element, share);
      }
    }
    if constexpr (read.dot) {
      add_channels<In, N>();
    } else if constexpr (!waits(read)) {
      sums.template add_pairs<read.adding>(a.captured[read.slot].data);
    }
  }

  // In a dot() what has been contributed goes to every channel of the row, times the other tensor's.
  template <Root In, int N>
  VICINAL_DEVICE void add_channels() {
    u32 element[kMine][kMine];
    float share[kMine][kMine];
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
#pragma unroll
      for (int c = 0; c < kMine; ++c) {
        element[i][c] = own.sums.element[thread_row(i)][thread_key(c)];
        share[i][c] = own.sums.share[thread_row(i)][thread_key(c)];
      }
    }
    const i64 channels = V::template channels<In, N>(a);
#pragma unroll 1
    for (i64 channel = 0; channel < channels; ++channel) {
#pragma unroll
      for (int i = 0; i < kMine; ++i) {
#pragma unroll
        for (int c = 0; c < kMine; ++c) {
          const int r = thread_row(i), j = thread_key(c);
          const float factor = share[i][c] == 0.0f ? 0.0f
                                                   : V::template factor<In, N>(a, shared.queries.query[r],
                                                                               shared.keys.key[j], channel);
          sums.contribute(r, j, element[i][c] + channel, share[i][c] * factor);
        }
      }
      sums.template add_pairs<kSite<V, In, N>.adding>(a.captured[kSite<V, In, N>.slot].data);
    }
  }

  template <Root In, int N, int Size>
  VICINAL_DEVICE void add_waiting(const float (&waiting)[Size][kMine]) {
    if constexpr (N > 0) {
      add_waiting<In, N - 1>(waiting);
      if constexpr (waits(kSite<V, In, N - 1>)) add_waiting_site<In, N - 1>(waiting[N - 1]);
    }
  }

  // The element follows the query at most, so that any key is as good as another.
  template <Root In, int N>
  VICINAL_DEVICE void add_waiting_site(const float (&waiting)[kMine]) {
    constexpr Site read = kSite<V, In, N>;
    const auto element_of = [&](int r) {
      i64 element = 0;
      float slope = 0.0f;
      V::template site<In, N>(a, shared.queries.query[r], Key<V::rank>{}, 0.0f, 0.0f, 0.0f, element, slope);
      return a.captured[read.slot].begin + element;
    };
    if constexpr (read.adding == Adding::head) {
      const float total = sum_warp(waiting[0] + waiting[1]);
      if (threadIdx.x % kWarp == 0) sums.contribute_line(threadIdx.x / kWarp, element_of(0), total);
      sums.add_contributed_lines(kThreads / kWarp);
    } else {
#pragma unroll
      for (int i = 0; i < kMine; ++i) {
        const int r = thread_row(i);
        const float total = sum_row(waiting[i]);
        if (thread_lane() == 0) sums.contribute_line(r, element_of(r), total);
      }
      sums.add_contributed_lines(kTile);
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

  // What rows read, by the first kTile threads, a row each.
  VICINAL_DEVICE void add_rows(const float (&d_scale)[kMine]) {
    if constexpr (kSiteCount<V, Root::scale> != 0) {
#pragma unroll
      for (int i = 0; i < kMine; ++i) {
        const float total = sum_row(d_scale[i]);
        if (thread_lane() == 0) own.d_scale[thread_row(i)] = total;
      }
      __syncthreads();
      add_row_sites<Root::scale>([&](int r, const Query<V::rank>&, auto slope_at) {
        const float slope = slope_at(0.0f, 0.0f);
        return slope == 0.0f ? 0.0f : own.d_scale[r] * slope;
      });
    }
    // A softmax' sink has the share exp(sink - lse) of its row; the lse is inf where the sink is.
    add_row_sites<Root::sink>([&](int r, const Query<V::rank>& q, auto slope_at) {
      const float sink = V::sink(a, q), slope = slope_at(0.0f, 0.0f);
      if (sink == -infinity() || slope == 0.0f) return 0.0f;
      return (sink == shared.lse[r] ? 1.0f : natural_exp(sink - shared.lse[r])) * shared.term[r] * slope;
    });
    // Of the output expression d_out is asked for as the caller gave it.
    add_row_sites<Root::output>([&](int r, const Query<V::rank>& q, auto slope_at) {
      const i64 out_at = query_offset<V>(a, a.out, q), d_at = query_offset<V>(a, a.given_d_out, q);
      const float lse = V::normalize == Normalize::softmax ? shared.lse[r] : 0.0f;
      float total = 0.0f;
#pragma unroll 1
      for (int c = 0; c < ValueDim; ++c) {
        const float out = to_float(static_cast<const T*>(a.out.data)[out_at + c * a.out.dim]);
        const float d = to_float(static_cast<const T*>(a.given_d_out.data)[d_at + c * a.given_d_out.dim]);
        const float slope = slope_at(out, lse);
        if (slope != 0.0f) total = fmaf(slope, d, total);
      }
      return total;
    });
  }

  // share_of(r, query, slope_at): of a row, with the slope at an out and lse.
  template <Root In, int N = kSiteCount<V, In>, class ShareOf>
  VICINAL_DEVICE void add_row_sites(ShareOf share_of) {
    if constexpr (N > 0) {
      add_row_sites<In, N - 1>(share_of);
      constexpr Site read = kSite<V, In, N - 1>;
      const int r = static_cast<int>(threadIdx.x) % kTile;
      const Query<V::rank>& q = shared.queries.query[r];
      const Key<V::rank> none = {};
      i64 element = 0, channels = 1;
      float share = 0.0f;
      if (threadIdx.x < kTile && shared.queries.exists(r))
        share = share_of(r, q, [&](float out, float lse) {
          float slope = 0.0f;
          V::template site<In, N - 1>(a, q, none, 0.0f, out, lse, element, slope);
          return slope;
        });
      if constexpr (read.dot) channels = V::template channels<In, N - 1>(a);
#pragma unroll 1
      for (i64 c = 0; c < channels; ++c) {
        float part = share;
        if constexpr (read.dot)
          if (share != 0.0f) part *= V::template factor<In, N - 1>(a, q, none, c);
        add_row_lines<read.adding>(r, a.captured[read.slot].begin + element + c, part);
      }
    }
  }
  template <Adding adding>
  VICINAL_DEVICE void add_row_lines(int r, i64 element, float share) {
    constexpr int kLines = adding == Adding::head ? 1 : kTile;
    if (threadIdx.x < kTile) {
      if constexpr (adding == Adding::head) share = sum_warp(share);
      if (r < kLines) sums.contribute_line(r, element, share);
    }
    sums.add_contributed_lines(kLines);
  }

  Shared& own;
  float* block_sums;
  CapturedSums<V::rank> sums;
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
