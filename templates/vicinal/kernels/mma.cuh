// The tensor-core kernel of any GPU from sm_80 on: products of warps (mma.sync), copies that do not pass
// through registers (cp.async).
//
// A block owns a tile of queries of one batch and head, a warp 16 or 32 rows of it. It walks over the tiles
// of keys that the plan has for it; while it works on one, the next is copied into the other of two stages. A
// tile is worked on in chunks, by every warp for itself:
//
//   keep      which pairs does the variant keep?        a chunk of which a warp keeps none ends here
//   multiply  scores = Q * K^T
//   weigh     scores -> variant's score -> weights      online softmax
//   gather    out += weights * V
//
// Scores, weights and output stay in registers. A row's weights are taken against a reference that is raised,
// and what is accumulated rescaled, only where a score exceeds it by more than kSlack: seldom.
//
// Numbers of a key that a query does not keep never reach that query: scores are selected, and rows whose
// output comes out NaN or Inf, as 0 * NaN does, are redone pair by pair.
#pragma once

#include "vicinal/mma/exact_rows.cuh"
#include "vicinal/mma/products.cuh"
#include "vicinal/online_softmax.cuh"
#include "vicinal/tile/tokens_of_tile.cuh"

namespace vicinal::mma {

// Of an exponent, in base 2: weights stay below 2^kSlack, which f16 holds.
constexpr float kSlack = 8.0f;

constexpr int whole_blocks(int channels) {
  return (channels + kBlock - 1) / kBlock * kBlock;
}

constexpr int power_of_two(int least) {
  int power = 1;
  while (power < least) power *= 2;
  return power;
}

template <AttentionVariant V, class T, int HeadDim, int ValueDim, class Schedule>
class Forward {
  static_assert(HeadDim % 8 == 0 && HeadDim >= 8 && HeadDim <= 256,
                "head dims are multiples of 8 from 8 to 256");
  static_assert(ValueDim % 8 == 0 && ValueDim >= 8 && ValueDim <= 256,
                "value dims are multiples of 8 from 8 to 256");
  using P = Products<T, Schedule::split>;

  static constexpr int kRank = V::rank;
  static constexpr int kWarps = Schedule::warps, kThreads = 32 * kWarps;
  static constexpr int kTileQ = Schedule::tile_q, kTileK = Schedule::tile_k, kChunk = Schedule::chunk;
  static constexpr int kWarpRows = kTileQ / kWarps;
  // Of a warp, in blocks of 16: rows, keys of a chunk, channels.
  static constexpr int kRowBlocks = kWarpRows / kBlock, kKeyBlocks = kChunk / kBlock;
  static constexpr int kHead = whole_blocks(HeadDim), kValue = whole_blocks(ValueDim);
  static constexpr int kHeadBlocks = kHead / kBlock, kValueBlocks = kValue / kBlock;
  static constexpr int kRows = 2 * kRowBlocks;  // of a thread
  static_assert(kRowBlocks * kWarps * kBlock == kTileQ && kTileK % kChunk == 0 && kChunk % kBlock == 0);
  static_assert(kRows * kChunk / 4 <= 64, "a bit for every pair of a thread");

  static constexpr int kKeyStride = P::key_stride(kHead), kValueStride = P::value_stride(kValue);
  // Queries stay in registers where they take few.
  static constexpr bool kHeld = Schedule::holds_queries;
  static constexpr int kStages = 2;
  // Output rows are staged as fp32, a block of rows of every warp at a time.
  static constexpr int kOutStride = kValue + 4;

  // A score that is the scaled product is weighed in base 2, where the scale takes the change of base along
  // and is applied together with the row's reference. It is positive then: the sign is the product's.
  static constexpr bool kBinary = !V::has_score && V::normalize == Normalize::softmax;
  static constexpr float kLeastScale = 1e-30f;

  struct Operands {
    T q[kTileQ][kKeyStride];
    struct {
      T k[kTileK][kKeyStride];
      T v[kTileK][kValueStride];
    } stage[kStages];
  };
  struct Output {
    float row[kWarps][kBlock][kOutStride];
  };

 public:
  // Of the launch.
  union alignas(16) Tiles {
    Operands operands;
    Output output;
  };
  static_assert(sizeof(Tiles) <= Schedule::shared_bytes, "the host counts less shared memory than it takes");
  // Of the block.
  struct Control {
    TileRow<kRank> tiles;
    RowRuns runs;
    QueryTile<V, kTileQ> queries;
    // Of the tiles that one warp computes on, another copies, and a third locates.
    KeyTile<V, kTileK> keys[3];
    float q_norm[V::query_l2norm ? kTileQ : 1], k_norm[V::key_l2norm ? kTileK : 1];  // reciprocals
  };

  VICINAL_DEVICE Forward(const typename V::Arguments& arguments, Control& c, Tiles& t)
      : a(arguments), control(c), tiles(t) {}

  // Tiles of one head next to each other, since they share keys, and the last first: causal ones are longest.
  VICINAL_DEVICE void run() {
    const int heads = static_cast<int>(a.heads), rows = static_cast<int>(a.tiles.rows);
    // Below 2^32, as the host checks: a 64-bit division is long.
    const u32 items = static_cast<u32>(a.batch * heads * rows);
#pragma unroll 1
    for (u32 item = blockIdx.x; item < items; item += gridDim.x) {
      const int slice = static_cast<int>(item / rows);  // a batch and a head
      const int number = rows - 1 - static_cast<int>(item - slice * rows);
      if (!start(slice / heads, slice % heads, number)) continue;
      walk();
      finish();
    }
  }

 private:
  // Keeps the compiler from giving the first round code of its own.
  VICINAL_DEVICE static bool opaque(int condition) {
    u32 unknown = static_cast<u32>(condition);
    settle(unknown);
    return unknown != 0;
  }
  // Row i of a thread, and the first of its columns in a block of 16; the other three are 1, 8 and 9 further.
  VICINAL_DEVICE static int warp_row() {
    return static_cast<int>(threadIdx.x) / 32 * kWarpRows;
  }
  VICINAL_DEVICE static int row(int i) {
    return warp_row() + i * 8 + lane() / 4;
  }
  VICINAL_DEVICE static int column() {
    return lane() % 4 * 2;
  }
  // Of an accumulator of a block.
  VICINAL_DEVICE static int column(int half, int i) {
    return 8 * half + column() + i % 2;
  }
  // Of the tile's first query, which is always there: batch and heads of all of them.
  VICINAL_DEVICE const Query<kRank>& slice() const {
    return control.queries.query[0];
  }

  // False where a dilation group has fewer tiles than the largest: no query then.
  VICINAL_DEVICE bool start(int b, int h, int number) {
    __syncthreads();
    if (threadIdx.x == 0) {
      control.runs = runs_of<V>(a, b, h, number);
      control.tiles.template place<V>(a, number, kTileK);
    }
    __syncthreads();
    if (!control.tiles.has_query()) return false;
    for (int r = threadIdx.x; r < kTileQ; r += kThreads) control.queries.locate(a, control.tiles, b, h, r);
    __syncthreads();
    scale = V::scale(a, slice());
    negative = kBinary && scale < 0.0f;
    if constexpr (kBinary) {
      scale = fabsf(scale) * kLog2E;
      // 0 times -inf, which stands for a pair that is not kept, would be NaN.
      if (scale < kLeastScale) scale = kLeastScale;
    }
    const float sink = V::has_sink ? V::sink(a, slice()) * (kBinary ? kLog2E : 1.0f) : -infinity();
#pragma unroll
    for (int i = 0; i < kRows; ++i) state[i].start(sink, lane() % 4 == 0);
#pragma unroll
    for (int m = 0; m < kRowBlocks; ++m) {
#pragma unroll
      for (int d = 0; d < kValueBlocks; ++d) clear(out[m][d]);
    }
    return true;
  }

  VICINAL_DEVICE static void clear(Accumulator& c) {
#pragma unroll
    for (int i = 0; i < 8; ++i) c[i / 4][i % 4] = 0.0f;
  }

  VICINAL_DEVICE void walk() {
    copy<HeadDim>(tiles.operands.q, row_source<T>(a.q, slice().b * a.q.batch + slice().h * a.q.head),
                  control.queries.q_offset);
    TileWalk<V> walk(a, control.runs);
    Visit now, next;
    int stage = 1, located = 2;  // of the tile before the first
    bool first = true;
#pragma unroll 1
    for (bool works = opaque(false), goes_on = true; goes_on; works = goes_on) {
      goes_on = walk.next(a, control.tiles, control.runs, next);
      const int other = located == 2 ? 0 : located + 1;
      if (goes_on) locate(next, control.keys[other]);
      copies_wait();
      // Everybody's copies are there, everybody is done with the tile before, and the next one is located.
      __syncthreads();
      if (goes_on) copy(next, control.keys[other], stage ^ 1);
      if (works) {
        if constexpr (V::query_l2norm || V::key_l2norm) {
          if (V::query_l2norm && first) add_norms<kTileQ>(tiles.operands.q, control.q_norm);
          if (V::key_l2norm) add_norms<kTileK>(tiles.operands.stage[stage].k, control.k_norm);
          __syncthreads();
        }
        if (kHeld && first) {
#pragma unroll
          for (int i = 0; i < kRowBlocks * kHeadBlocks; ++i)
            held[i] = queries(i / kHeadBlocks, i % kHeadBlocks);
        }
        first = false;
#pragma unroll 1
        for (int begin = 0; begin < kTileK; begin += kChunk) add(now, control.keys[located], stage, begin);
      }
      now = next;
      stage ^= 1;
      located = other;
    }
  }

  VICINAL_DEVICE void locate(const Visit& tile, KeyTile<V, kTileK>& keys) {
    for (int j = threadIdx.x; j < kTileK; j += kThreads) {
      if (V::has_context && tile.context) {
        keys.locate_context(a, tile.number * kTileK, j);
      } else {
        keys.locate(a, control.tiles, tile.number, j);
      }
    }
  }

  // Keys or values at the block's batch and head.
  VICINAL_DEVICE RowSource<T> source(const TensorArgument<kRank>& tensor) const {
    return row_source<T>(tensor, slice().b * tensor.batch + slice().kv_h * tensor.head);
  }
  VICINAL_DEVICE void copy(const Visit& tile, const KeyTile<V, kTileK>& keys, int stage) {
    const bool context = V::has_context && tile.context;
    copy<HeadDim>(tiles.operands.stage[stage].k, source(context ? a.context_k : a.k), keys.k_offset);
    copy<ValueDim>(tiles.operands.stage[stage].v, source(context ? a.context_v : a.v), keys.v_offset);
  }

  // Rows of a tensor to a tile, by all threads: under way where whole words can be copied. What is not there,
  // up to the next block of channels, becomes 0. A thread takes one column of words, or elements.
  template <int Channels, int Rows, int Stride>
  VICINAL_DEVICE static void copy(T (&to)[Rows][Stride], const RowSource<T>& from, const i64* offset) {
    constexpr int kWord = kPerWord<T>, kColumns = power_of_two(whole_blocks(Channels) / kWord);
    if (from.words) {
      const int x = static_cast<int>(threadIdx.x) % kColumns * kWord;
      if (x >= whole_blocks(Channels)) return;
#pragma unroll 4
      for (int r = static_cast<int>(threadIdx.x) / kColumns; r < Rows; r += kThreads / kColumns) {
        const i64 at = offset[r];
        const bool exists = at != kNoRow && x < Channels;
        copy_word(shared_address(&to[r][x]), from.data + (exists ? at + x : 0), exists);
      }
      return;
    }
#pragma unroll 1
    for (int i = threadIdx.x; i < Rows * whole_blocks(Channels); i += kThreads) {
      const int r = i / whole_blocks(Channels), x = i % whole_blocks(Channels);
      const bool exists = offset[r] != kNoRow && x < Channels;
      to[r][x] = exists ? from.data[offset[r] + x * from.step] : from_float<T>(0.0f);
    }
  }

  template <int Rows, int Stride>
  VICINAL_DEVICE static void add_norms(const T (&tile)[Rows][Stride], float* norm) {
    for (int r = threadIdx.x; r < Rows; r += kThreads) {
      float squares = 0.0f;
#pragma unroll 1
      for (int x = 0; x < HeadDim; ++x) squares = fmaf(to_float(tile[r][x]), to_float(tile[r][x]), squares);
      norm[r] = 1.0f / fmaxf(sqrtf(squares), 1e-12f);
    }
  }

  // One chunk of a tile, for the rows of a warp.
  VICINAL_DEVICE void add(const Visit& tile, const KeyTile<V, kTileK>& keys, int stage, int begin) {
    const bool context = V::has_context && tile.context;
    u64 kept = 0;
    if (!tile.full) {
      kept = keep(context, keys, begin);
      if (!__any_sync(~0u, kept != 0)) return;
    }
    Accumulator scores[kRowBlocks][kKeyBlocks];
    multiply(scores, stage, begin);
    score(scores, context, keys, begin);
    if (negative) negate(scores);
    if (!tile.full) select(scores, kept);
    weigh(scores);
    gather(scores, stage, begin);
  }

  // The pairs of a thread are numbered by blocks of keys, halves, rows and neighbours; loops over blocks are
  // not unrolled, since a mask may be long.
  static constexpr int kPairs = 4 * kRows;  // of a block of keys
  VICINAL_DEVICE u64 keep(bool context, const KeyTile<V, kTileK>& keys, int begin) const {
    u64 kept = 0;
#pragma unroll 1
    for (int n = kKeyBlocks - 1; n >= 0; --n) {
      u32 block = 0;
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        const int key = begin + n * kBlock + column(pair / (2 * kRows), pair);
        const bool keeps = keeps_pair(a, context, control.queries, row(pair / 2 % kRows), keys, key);
        block |= static_cast<u32>(keeps) << pair;
      }
      kept = kept << kPairs | block;
    }
    return kept;
  }
  VICINAL_DEVICE typename P::Operand queries(int m, int d) const {
    return P::template queries<kKeyStride>(tiles.operands.q[0], warp_row() + m * kBlock, d * kBlock);
  }

  VICINAL_DEVICE void multiply(Accumulator (&scores)[kRowBlocks][kKeyBlocks], int stage, int begin) const {
#pragma unroll
    for (int m = 0; m < kRowBlocks; ++m) {
#pragma unroll
      for (int n = 0; n < kKeyBlocks; ++n) clear(scores[m][n]);
    }
#pragma unroll
    for (int d = 0; d < kHeadBlocks; ++d) {
      typename P::Operand q[kRowBlocks];
#pragma unroll
      for (int m = 0; m < kRowBlocks; ++m)
        q[m] = kHeld ? held[kHeld ? m * kHeadBlocks + d : 0] : queries(m, d);
#pragma unroll
      for (int n = 0; n < kKeyBlocks; ++n) {
        const auto k =
            P::template keys<kKeyStride>(tiles.operands.stage[stage].k[0], begin + n * kBlock, d * kBlock);
#pragma unroll
        for (int m = 0; m < kRowBlocks; ++m) P::add(scores[m][n], q[m], k);
      }
    }
  }

  // Element j of row i of a thread, by columns.
  static constexpr int kColumns = 4 * kKeyBlocks;
  VICINAL_DEVICE static float& element(Accumulator (&x)[kRowBlocks][kKeyBlocks], int i, int j) {
    return x[i / 2][j / 4][j / 2 % 2][i % 2 * 2 + j % 2];
  }

  // Dot products to scores.
  VICINAL_DEVICE void score(Accumulator (&scores)[kRowBlocks][kKeyBlocks], bool context,
                            const KeyTile<V, kTileK>& keys, int begin) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        float& s = element(scores, i, j);
        const int key = begin + j / 4 * kBlock + column(j / 2 % 2, j);
        if constexpr (V::query_l2norm) s *= control.q_norm[row(i)];
        if constexpr (V::key_l2norm) s *= control.k_norm[key];
        if constexpr (!kBinary) s *= scale;
        if constexpr (V::has_score)
          s = score_of<V>(a, context, control.queries.query[row(i)], keys.key[key], s);
      }
    }
  }

  VICINAL_DEVICE static void negate(Accumulator (&scores)[kRowBlocks][kKeyBlocks]) {
#pragma unroll
    for (int i = 0; i < kRows * kColumns; ++i) {
      float& s = element(scores, i / kColumns, i % kColumns);
      s = -s;
    }
  }
  VICINAL_DEVICE static void select(Accumulator (&scores)[kRowBlocks][kKeyBlocks], u64 kept) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        const int bit = j / 4 * kPairs + j / 2 % 2 * 2 * kRows + 2 * i + j % 2;
        if (!(kept >> bit & 1)) element(scores, i, j) = -infinity();
      }
    }
  }

  // Scores to weights.
  VICINAL_DEVICE void weigh(Accumulator (&scores)[kRowBlocks][kKeyBlocks]) {
    float largest[kRows];
    bool rises = false;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      largest[i] = element(scores, i, 0);
#pragma unroll
      for (int j = 1; j < kColumns; ++j) largest[i] = fmaxf(largest[i], element(scores, i, j));
      if constexpr (kBinary) largest[i] *= scale;
      rises = rises || state[i].exceeded(largest[i], kBinary ? kSlack : kSlack / kLog2E);
    }
    if (__any_sync(~0u, rises)) raise(largest);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        float& x = element(scores, i, j);
        if constexpr (kBinary)
          x = state[i].weigh(x, scale);
        else
          x = state[i].weigh(x);
      }
    }
  }

  // Over the four threads that share a row.
  template <class Combine>
  VICINAL_DEVICE static float reduce_row(float x, Combine combine) {
    x = combine(x, __shfl_xor_sync(~0u, x, 1));
    return combine(x, __shfl_xor_sync(~0u, x, 2));
  }

  VICINAL_DEVICE void raise(const float (&largest)[kRows]) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float factor =
          state[i].raise(reduce_row(largest[i], [](float x, float y) { return fmaxf(x, y); }));
#pragma unroll
      for (int d = 0; d < 4 * kValueBlocks; ++d) out[i / 2][d / 4][d / 2 % 2][i % 2 * 2 + d % 2] *= factor;
    }
  }

  VICINAL_DEVICE void gather(const Accumulator (&weights)[kRowBlocks][kKeyBlocks], int stage, int begin) {
#pragma unroll
    for (int n = 0; n < kKeyBlocks; ++n) {
      typename P::Operand w[kRowBlocks];
#pragma unroll
      for (int m = 0; m < kRowBlocks; ++m) w[m] = P::weights(weights[m][n]);
#pragma unroll
      for (int d = 0; d < kValueBlocks; ++d) {
        const auto v = P::template values<kValueStride>(tiles.operands.stage[stage].v[0], begin + n * kBlock,
                                                        d * kBlock);
#pragma unroll
        for (int m = 0; m < kRowBlocks; ++m) P::add(out[m][d], w[m], v);
      }
    }
  }

  // Through shared memory, so that neighbouring threads store neighbouring elements and the output hook is
  // compiled once.
  VICINAL_DEVICE void finish() {
    __syncthreads();  // operands make room
    float norm[kRows], lse[kRows], probe[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float total = reduce_row(state[i].total(), [](float x, float y) { return x + y; });
      norm[i] = state[i].norm(total);
      lse[i] = state[i].lse(total);
      probe[i] = 0.0f;
    }
    bool poisoned = false;
#pragma unroll
    for (int m = 0; m < kRowBlocks; ++m) {
      float(&staged)[kBlock][kOutStride] = tiles.output.row[threadIdx.x / 32];
#pragma unroll
      for (int d = 0; d < 8 * kValueBlocks; ++d) {
        const int half = d / 4 % 2, i = d % 4;
        const float x = out[m][d / 8][half][i] * norm[2 * m + i / 2];
        probe[2 * m + i / 2] = fmaf(x, 0.0f, probe[2 * m + i / 2]);
        staged[i / 2 * 8 + lane() / 4][d / 8 * kBlock + column(half, i)] = x;
      }
      // The row's LSE is where its padding is.
      if (lane() % 4 == 0)
        staged[lane() / 4][kValue] = lse[2 * m], staged[8 + lane() / 4][kValue] = lse[2 * m + 1];
      __syncwarp();
      store(staged, warp_row() + m * kBlock);
      __syncwarp();
      poisoned = poisoned || probe[2 * m] != 0.0f || probe[2 * m + 1] != 0.0f;
    }
    if (!__any_sync(~0u, poisoned)) return;
#pragma unroll 1
    for (int r = 0; r < kWarpRows; ++r) {
      bool mine = false;
#pragma unroll
      for (int i = 0; i < kRows; ++i) mine = mine || (r / 8 == i && r % 8 == lane() / 4 && probe[i] != 0.0f);
      if (__any_sync(~0u, mine) && control.queries.exists(warp_row() + r))
        redo_row<V, T, HeadDim, ValueDim>(a, control.queries, warp_row() + r);
    }
  }

  // Sixteen rows from the first one on, by a warp.
  VICINAL_DEVICE void store(const float (&staged)[kBlock][kOutStride], int first) const {
    T* const to = static_cast<T*>(a.out.data) + slice().b * a.out.batch + slice().h * a.out.head;
#pragma unroll 1
    for (int i = lane(); i < kBlock * (ValueDim / 4); i += 32) {
      const int r = i / (ValueDim / 4), x = i % (ValueDim / 4) * 4;
      if (!control.queries.exists(first + r)) continue;
      T* const element = to + control.queries.out_offset[first + r] + x * a.out.dim;
      float value[4];
      *reinterpret_cast<float4*>(value) = *reinterpret_cast<const float4*>(&staged[r][x]);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if constexpr (V::has_output)
          value[j] = V::output(a, control.queries.query[first + r], value[j], staged[r][kValue]);
        element[j * a.out.dim] = from_float<T>(value[j]);
      }
    }
    if (V::normalize != Normalize::softmax || a.lse.data == nullptr || lane() >= kBlock) return;
    if (!control.queries.exists(first + lane())) return;
    float* const lse = static_cast<float*>(a.lse.data) + slice().b * a.lse.batch + slice().h * a.lse.head;
    lse[control.queries.lse_offset[first + lane()]] = staged[lane()][kValue];
  }

  const typename V::Arguments& a;
  Control& control;
  Tiles& tiles;
  float scale;
  bool negative;  // the scale
  RowWeights<V::normalize, kBinary> state[kRows];
  typename P::Operand held[kHeld ? kRowBlocks * kHeadBlocks : 1];
  Accumulator out[kRowBlocks][kValueBlocks];
};

template <AttentionVariant V, class T, int HeadDim, int ValueDim, class Schedule>
VICINAL_DEVICE void forward(const typename V::Arguments& a) {
  using Kernel = Forward<V, T, HeadDim, ValueDim, Schedule>;
  __shared__ typename Kernel::Control control;
  Kernel(a, control, *reinterpret_cast<typename Kernel::Tiles*>(dynamic_shared())).run();
}

}  // namespace vicinal::mma
