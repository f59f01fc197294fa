// A consumer warpgroup of the backward pass: the gradients of 64 keys and of their values, and its part of
// what they add to the gradients of the queries that see them.
//
// Everything is transposed: scores and weights have a row per key and a column per query, so that weights and
// the gradients of scores are operands in registers for the gradients of values and keys. Only the gradients
// of queries need them from shared memory. The scheme is FlashAttention-3's (Shah et al., 2024).
#pragma once

#include "vicinal/hopper/backward/layout.cuh"
#include "vicinal/hopper/boxes.cuh"
#include "vicinal/hopper/key_limits.cuh"
#include "vicinal/ptx/math.cuh"
#include "vicinal/tokens.cuh"

namespace vicinal::hopper::backward {

template <Variant V, class T, int HeadDim, int ValueDim, class Schedule, class Products>
class KeyGroup {
  using L = BackwardLayout<V, HeadDim, ValueDim, Schedule>;
  using Control = typename L::Control;
  using Sums = typename L::Sums;
  using Rows = typename L::Rows;
  static constexpr int kRank = V::rank;
  static constexpr int kTileQ = L::kTileQ;
  using Bits = ColumnBits<kTileQ>;
  static constexpr int kScores = kTileQ / 2, kKey = HeadDim / 2, kValue = ValueDim / 2;  // registers

 public:
  VICINAL_DEVICE KeyGroup(const LaunchArguments<typename V::Arguments>& arguments, u32 shared, Control& c,
                          int number)
      : launch(arguments), a(arguments.backward), base(shared), control(c), group(number) {}

  VICINAL_DEVICE void run() {
    Place<kItemSlots> slot;
    Place<1> full;
#pragma unroll 1
    for (Item item; __any_sync(~0u, (item = next_item(control, slot)).exists); full.advance()) {
      begin(item);
      Next next = next_queries();
      barrier_wait(shared_address(&control.keys_full), full.parity());
      // The same for all threads, and the compiler should know.
#pragma unroll 1
      while (!__any_sync(~0u, next.note.flags & kEnd)) step(next);
      release(control.q_empty[query.stage()]);
      query.advance();
      // The next keys may come while gradients leave.
      release(control.keys_empty);
      finish(item);
    }
    if (leads()) store_wait();
  }

 private:
  // The thread's keys in the tile.
  VICINAL_DEVICE int row(int r) const {
    return group * kGroupRows + warp() * 16 + lane() / 4 + 8 * r;
  }

  VICINAL_DEVICE void begin(const Item& item) {
#pragma unroll
    for (int i = 0; i < kKey; ++i) d_key[i] = 0.0f;
#pragma unroll
    for (int i = 0; i < kValue; ++i) d_value[i] = 0.0f;
    tile = item.tile;
    head = -1;
    at.b = item.b;
    at.kv_h = item.kv_h;
    if constexpr (L::kSeen) {
      const int r = static_cast<int>(threadIdx.x) % kGroupThreads;
      if (r < kGroupRows) control.seen[group * kGroupRows + r] = queries_of(group * kGroupRows + r);
      named_sync(group_barrier(group), kGroupThreads);
    }
  }

  // Those that see a key of the tile, as far as windows go; none of one that is not there.
  VICINAL_DEVICE KeyRanges<kRank> queries_of(int r) const {
    const BoxGrid<V> boxes = key_boxes<V>(a);
    int place[kRank];
    boxes.place(tile, place);
    Token<kRank> token;
    const bool exists = boxes.token(place, r, token);
    KeyRanges<kRank> seen;
#pragma unroll
    for (int i = 0; i < kRank; ++i) {
      seen.axis[i] = queries_seeing(V::axis(a, i), token.local[i] + boxes.global(i));
      if (!exists) seen.axis[i] = {0, 0};
    }
    return seen;
  }

  // What is said of the queries of the thread's scores. With 64 queries there are registers to have it at
  // hand before the scores are there.
  class RowValues {
   public:
    VICINAL_DEVICE explicit RowValues(const float (&said)[kTileQ])
        : from(reinterpret_cast<const float4*>(said) + lane() % 4) {
      if constexpr (kAhead) {
#pragma unroll
        for (int n = 0; n < kTileQ / 16; ++n) fours[n] = from[4 * n];
      }
    }
    // By number of the score.
    template <class Each>
    VICINAL_DEVICE void each(Each each) const {
#pragma unroll
      for (int n = 0; n < kTileQ / 16; ++n) {
        const float4 four = kAhead ? fours[kAhead ? n : 0] : from[4 * n];
        const float of[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int i = 0; i < 8; ++i) each(8 * n + i, of[i / 4 * 2 + i % 2]);
      }
    }

   private:
    static constexpr bool kAhead = kTileQ == 64;
    const float4* from;
    float4 fours[kAhead ? kTileQ / 16 : 1];
  };

  // Of the tile of queries that comes next. Exponents are read before its products start: what is read from
  // shared memory meanwhile waits until most of their operands have been.
  struct Next {
    QueryNote<kRank> note;
    RowValues exponents;
  };
  VICINAL_DEVICE Next next_queries() {
    barrier_wait(shared_address(&control.q_full[query.stage()]), query.parity());
    const QueryNote<kRank> note = control.note[query.stage()];
    if (!(note.flags & kEnd) && note.h != head) turn_to(note.h);
    return {note, RowValues(control.rows[query.stage()].exponent)};
  }

  VICINAL_DEVICE void turn_to(int h) {
    at.h = h;
    head = h;
    factor = dot_factor<V>(a, at);
    scale = (V::has_core ? 1.0f : V::factor(a, at)) * kLog2E;
    if constexpr (V::has_slope && !V::has_core) slope = V::slope(a, at) * kLog2E;
  }

  // Leaves the next tile: nothing but products should lie between two steps' products.
  VICINAL_DEVICE void step(Next& next) {
    const QueryNote<kRank>& note = next.note;
    const u32 queries = base + L::kQueries + query.stage() * L::kQueryBytes,
              out = base + L::kDOut + d_out.stage() * L::kDOutBytes, own = group * kGroupRows * kSlabRowBytes;
    const Rows& rows = control.rows[query.stage()];
    float scores[kScores], d_scores[kScores];
    leave_undefined(scores);
    leave_undefined(d_scores);
    Products::scores(scores, operand(base + L::kKeys + own, 16, 8 * kSlabRowBytes),
                     operand(queries, 16, 8 * kSlabRowBytes));
    barrier_wait(shared_address(&control.d_out_full[d_out.stage()]), d_out.parity());
    Products::d_weights(d_scores, operand(base + L::kValues + own, 16, 8 * kSlabRowBytes),
                        operand(out, 16, 8 * kSlabRowBytes));
    const bool partial = __any_sync(~0u, note.flags & kPartial);
    Bits kept[2];
    if (partial) find_kept(note, keys(), kept);
    u32 weights[kScores / 2], rounded[kScores / 2];
    products_wait<1>();
    Products::hold(scores);
    weigh(note, next.exponents, scores, weights);
    const RowValues terms(rows.term);
    products_wait<0>();
    Products::hold(d_scores);
    terms.each([&](int i, float term) { d_scores[i] = scores[i] * (d_scores[i] + term); });
    if (partial) drop(kept, scores, d_scores, weights);
    if constexpr (V::dot_factor_varies) {
#pragma unroll
      for (int i = 0; i < kScores; ++i) d_scores[i] *= factor;
    }
    if constexpr (!V::has_core) round(weights, scores);
    round(rounded, d_scores);

    const u32 shared_scores = base + L::kScores + d_out.stage() * L::kScoreBytes;
    stage_scores(shared_scores, rounded);
    Products::d_values(d_value, weights, operand(out, kTileQ * kSlabRowBytes, 8 * kSlabRowBytes));
    async_proxy_fence();
    named_sync(kGroupsBarrier, kGroups * kGroupThreads);
    float d_query[Sums::kPerThread];
    leave_undefined(d_query);
    const u32 part = Sums::kSplitsChannels ? 0 : own,
              slab = Sums::kSplitsChannels
                         ? group * (Sums::kColumns * 2 / kSlabRowBytes) * (kTileK * kSlabRowBytes)
                         : 0;
    static_assert(!Sums::kSplitsChannels || Sums::kColumns % kSlabChannels == 0);
    Products::d_queries(d_query, operand(shared_scores + part, 16, 8 * kSlabRowBytes),
                        operand(base + L::kKeys + slab, kTileK * kSlabRowBytes, 8 * kSlabRowBytes));
    products_wait<1>();
    Products::hold(d_value);
    Products::hold(weights);
    release(control.d_out_empty[d_out.stage()]);
    d_out.advance();
    Products::d_keys(d_key, rounded, operand(queries, kTileQ * kSlabRowBytes, 8 * kSlabRowBytes));
    products_wait<1>();
    Products::hold(d_query);
    give(d_query);
    u64& empty = control.q_empty[query.stage()];
    query.advance();
    next = next_queries();
    products_wait<0>();
    Products::hold(d_key);
    Products::hold(rounded);
    release(empty);
  }

  // To the warp that adds them to those in memory.
  VICINAL_DEVICE void give(const float (&sums)[Sums::kPerThread]) {
    // The sums before have left.
    named_sync(sums_empty(group), kAddingThreads);
    const u32 to = base + L::kSums + group * Sums::kGroupFloats * 4 + threadIdx.x % kGroupThreads * 16;
#pragma unroll
    for (int i = 0; i < Sums::kPerThread; i += 4)
      store_shared(to + i / 4 * kGroupThreads * 16, sums[i], sums[i + 1], sums[i + 2], sums[i + 3]);
    async_proxy_fence();
    named_arrive(sums_full(group), kAddingThreads);
  }

  VICINAL_DEVICE static void round(u32 (&to)[kScores / 2], const float (&from)[kScores]) {
#pragma unroll
    for (int i = 0; i < kScores / 2; ++i) to[i] = pack<T>(from[2 * i], from[2 * i + 1]);
  }

  // The thread's keys; past the last one it is repeated.
  struct Keys {
    Token<kRank> token[2];
    bool exists[2];
  };
  VICINAL_DEVICE Keys keys() const {
    const BoxGrid<V> boxes = key_boxes<V>(a);
    int place[kRank];
    boxes.place(tile, place);
    Keys own;
#pragma unroll
    for (int r = 0; r < 2; ++r) own.exists[r] = boxes.token(place, row(r), own.token[r]);
    return own;
  }

  // Which of the thread's scores are of pairs that are kept, in a tile that may be partial, by its keys.
  VICINAL_DEVICE void find_kept(const QueryNote<kRank>& note, const Keys& own, Bits (&bits)[2]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) bits[r] = own.exists[r] ? ~Bits{} : 0;
    if constexpr (V::has_limits) {
      find_inside(bits);
    } else if constexpr (V::neighborhood) {
      const BoxColumns<kRank, kTileQ> columns(launch.boxes.columns, a.tiles.q, column());
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const KeyRanges<kRank>& seen = control.seen[row(r)];
#pragma unroll
        for (int i = 0; i < kRank; ++i) {
          const int begin = seen.axis[i].begin - note.first[i], end = seen.axis[i].end - note.first[i];
          const bool flat = kRank > 1 && a.tiles.q[i] == 1;  // whose columns have no stretches
          bits[r] &= flat ? (begin <= 0 && 0 < end ? ~Bits{} : 0) : columns.between(i, begin, end);
        }
      }
    }
    if constexpr (V::has_keeps) ask(own, bits);
  }

  // Limits are a sequence's, and of keys that there are.
  VICINAL_DEVICE void find_inside(Bits (&bits)[2]) const {
    const int first = kTileK * tile + static_cast<int>(a.k_axis[0].origin);
    const auto* const two = reinterpret_cast<const int4*>(control.rows[query.stage()].limits) + lane() % 4;
    bits[0] = bits[1] = 0;
#pragma unroll 2
    for (int n = 0; n < kTileQ / 8; ++n) {
      const int4 limits = two[4 * n];
      const KeyLimits keys[2] = {{limits.x, limits.y}, {limits.z, limits.w}};
#pragma unroll
      for (int e = 0; e < 2; ++e) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int key = first + row(r);
          bits[r] |= static_cast<Bits>(key >= keys[e].begin && key < keys[e].end) << (2 * n + e);
        }
      }
    }
  }

  VICINAL_DEVICE void ask(const Keys& own, Bits (&bits)[2]) const {
    Key<kRank> k[2];
    typename V::Column known[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      k[r] = key_of<V>(a, own.token[r]);
      known[r] = V::column(a, at, k[r]);
    }
#pragma unroll 4
    for (int n = 0; n < kTileQ / 4; ++n) {
      typename V::Row q = {};
      if constexpr (V::keeps_rows) q = control.rows[query.stage()].row[column() + n / 2 * 8 + n % 2];
#pragma unroll
      for (int r = 0; r < 2; ++r)
        if (!V::template keeps<false>(a, q, known[r], k[r])) bits[r] &= ~(Bits{1} << n);
    }
  }
  VICINAL_DEVICE static bool bit(const Bits (&bits)[2], int score) {
    return bits[score / 2 % 2] >> (score / 4 * 2 + score % 2) & 1;
  }

  // Past the last query it is repeated, since indices are only known to be inside for those that are there.
  VICINAL_DEVICE Query<kRank> queried(const QueryNote<kRank>& note, int n) const {
    const BoxGrid<V> queries = query_boxes<V>(a);
    int place[kRank];
    queries.place(note.tile, place);
    Token<kRank> token;
    queries.token(place, n, token);
    Query<kRank> q = at;
    place_query<V>(a, token, q);
    return q;
  }

  // Where a pair is not kept its weight is 0, and so is the gradient of its score, whatever they came to.
  VICINAL_DEVICE static void drop(const Bits (&kept)[2], float (&scores)[kScores], float (&d)[kScores],
                                  u32 (&weights)[kScores / 2]) {
#pragma unroll
    for (int i = 0; i < kScores; ++i) {
      if (bit(kept, i)) continue;
      d[i] = 0.0f;
      if constexpr (V::has_core) {
        weights[i / 2] &= i % 2 ? 0xffffu : 0xffff0000u;
      } else {
        scores[i] = 0.0f;
      }
    }
  }

  // Dot products to weights.
  VICINAL_DEVICE void weigh(const QueryNote<kRank>& note, const RowValues& exponents,
                            float (&scores)[kScores], u32 (&weights)[kScores / 2]) const {
    if constexpr (V::has_core) {
      weigh_scores(note, exponents, scores, weights);
    } else {
      weigh_dots(note, exponents, scores);
    }
  }

  VICINAL_DEVICE void weigh_dots(const QueryNote<kRank>& note, const RowValues& exponents,
                                 float (&scores)[kScores]) const {
    [[maybe_unused]] int distance = 0;  // from the thread's first query to its first key
    if constexpr (V::has_slope)
      distance = kTileK * tile + row(0) + static_cast<int>(a.k_axis[0].origin) - queried(note, 0).position -
                 column();
    exponents.each([&](int i, float exponent) {
      if constexpr (V::has_slope)
        exponent =
            fmaf(slope, static_cast<float>(distance + 8 * (i / 2 % 2) - (i / 4 * 8 + i % 2)), exponent);
      scores[i] = exp2_approx(fmaf(scores[i], scale, exponent));
    });
  }

  // Where the score is more than a multiple of the dot product. Weights are rounded here, and what is left is
  // their product with the score's derivative by the scaled dot product.
  VICINAL_DEVICE void weigh_scores(const QueryNote<kRank>& note, const RowValues& exponents,
                                   float (&scores)[kScores], u32 (&weights)[kScores / 2]) const {
    float before;  // the weight of a pair's first score
    const auto put = [&](int i, float weight, float derivative) {
      scores[i] = weight * derivative;
      if (i % 2 == 0)
        before = weight;
      else
        weights[i / 2] = pack<T>(before, weight);
    };
    if constexpr (V::has_gain) {
      float top = 0.0f;
#pragma unroll
      for (const float dot : scores) top = fmaxf(top, fabsf(dot));
      // A choice of the whole warp, as in the forward pass.
      if (__all_sync(~0u, top <= V::gentle)) {
        const float rise = V::rise / factor, fall = -rise / (V::bound * V::bound);
        exponents.each([&](int i, float exponent) {
          const float score = scores[i] * V::gain(scores[i] * scores[i]);
          put(i, exp2_approx(score + exponent), fmaf(score * score, fall, rise));
        });
        return;
      }
    }
    const Keys own = keys();
    exponents.each([&](int i, float exponent) {
      const Query<kRank> q = queried(note, column() + i / 4 * 8 + i % 2);
      const Key<kRank> k = key_of<V>(a, own.token[i / 2 % 2]);
      const float dot = scores[i] * factor;
      put(i, exp2_approx(fmaf(V::template score<false>(a, q, k, dot), kLog2E, exponent)),
          V::template d_score<false>(a, q, k, dot));
    });
  }

  // Gradients of scores as a tile of queries by keys, in slabs of 64 keys.
  VICINAL_DEVICE void stage_scores(u32 to, const u32 (&d)[kScores / 2]) const {
    const int chunk = warp() * 2 + lane() / 8 % 2;  // of 8 keys
    to += group * (kTileQ * kSlabRowBytes) + (lane() / 16 * 8 + lane() % 8) * kSlabRowBytes +
          ((chunk ^ lane() % 8) << 4);
#pragma unroll
    for (int n = 0; n < kTileQ / 16; ++n)
      store_transposed_matrices(to + n * 16 * kSlabRowBytes, d[4 * n], d[4 * n + 1], d[4 * n + 2],
                                d[4 * n + 3]);
  }

  VICINAL_DEVICE void finish(const Item& item) {
    float check = 0.0f;  // NaN once anything is not finite
#pragma unroll
    for (int i = 0; i < kKey; ++i) {
      d_key[i] *= last_factor<V>(a, at);
      check = fmaf(d_key[i], 0.0f, check);
    }
#pragma unroll
    for (int i = 0; i < kValue; ++i) check = fmaf(d_value[i], 0.0f, check);
    if (check != 0.0f) *launch.poisoned = 1;
    // Gradients of keys lie where those of the group's scores were, and gradients of values where its sums
    // were: nobody reads either any more.
    named_sync(sums_empty(group), kAddingThreads);
    named_sync(kGroupsBarrier, kGroups * kGroupThreads);
    const u32 staged_key = base + L::kScores + group * kTileQ * kSlabRowBytes,
              staged_value = base + L::kSums + group * Sums::kGroupFloats * 4;
    stage_rows<HeadDim, kKeyRows>(staged_key, d_key);
    stage_rows<ValueDim, kValueRows>(staged_value, d_value);
    async_proxy_fence();
    named_sync(group_barrier(group), kGroupThreads);
    if constexpr (V::dilated) {
      store_rows<HeadDim, kKeyRows>(a.d_k, staged_key, item);
      store_rows<ValueDim, kValueRows>(a.d_v, staged_value, item);
    } else if (leads()) {
      if (a.d_k.data != nullptr)
        store<HeadDim, kKeyRows>(&launch.maps.d_k, launch.boxes.d_k, staged_key, item);
      if (a.d_v.data != nullptr)
        store<ValueDim, kValueRows>(&launch.maps.d_v, launch.boxes.d_v, staged_value, item);
      store_commit();
      store_wait_read();
    }
    named_sync(group_barrier(group), kGroupThreads);
    named_arrive(sums_full(group), kAddingThreads);
  }

  // Rows of a slab, as far as they lie apart in memory that was something else's.
  static constexpr int kKeyRows = L::kScoreBytes / kSlabRowBytes, kValueRows = kGroupRows;
  static_assert(L::kHeadSlabs <= L::kStages && kTileQ >= kGroupRows);
  static_assert(L::kValueSlabs * kGroupRows * kSlabRowBytes <= Sums::kGroupFloats * 4);

  template <int Dim, int Rows>
  VICINAL_DEVICE void stage_rows(u32 to, const float (&x)[Dim / 2]) const {
    const int r = warp() * 16 + lane() % 16;
#pragma unroll
    for (int d = 0; d < Dim; d += 16) {
      const int chunk = d / 8 + lane() / 16;  // of 8 channels
      const int i = d / 2;
      store_matrices(staged_chunk<Rows>(to, r, chunk), pack<T>(x[i], x[i + 1]), pack<T>(x[i + 2], x[i + 3]),
                     pack<T>(x[i + 4], x[i + 5]), pack<T>(x[i + 6], x[i + 7]));
    }
  }
  template <int Dim, int Rows>
  VICINAL_DEVICE void store_rows(const TensorArgument<kRank>& tensor, u32 from, const Item& item) const {
    if (tensor.data == nullptr) return;
    const BoxGrid<V> boxes = key_boxes<V>(a);
    int place[kRank];
    boxes.place(tile, place);
    T* const to = static_cast<T*>(tensor.data) + item.b * tensor.batch + item.kv_h * tensor.head;
    store_staged_rows<Dim, Rows>(from, warp() * 16, [&](int r) {
      Token<kRank> token;
      return boxes.token(place, group * kGroupRows + r, token) ? to + token_offset(tensor, token) : nullptr;
    });
  }
  // Past the last key nothing is written.
  template <int Dim, int Rows>
  VICINAL_DEVICE void store(const TensorMap* map, const HeadSteps& steps, u32 from, const Item& item) const {
    int place[kRank], first[kRank], rest = group * kGroupRows;
    key_boxes<V>(a).place(tile, place);
#pragma unroll
    for (int i = kRank - 1; i >= 0; --i) {
      const int extent = static_cast<int>(a.tiles.k[i]);
      first[i] = place[i] * extent + take_digit(rest, extent, i == 0);
    }
#pragma unroll
    for (int slab = 0; slab < slabs(Dim); ++slab)
      store_box(map, box_origin<kRank>(steps, slab * kSlabChannels, first, item.kv_h, item.b),
                from + slab * Rows * kSlabRowBytes);
  }

  const LaunchArguments<typename V::Arguments>& launch;
  const typename V::Arguments& a;
  const u32 base;
  Control& control;
  const int group;

  Place<L::kQueryStages> query;
  Place<L::kStages> d_out;
  int tile;              // of keys
  Query<kRank> at = {};  // batch and heads
  int head;
  float factor;  // of dot products in scores
  float scale;   // of dot products in exponents to base 2
  float slope;   // of distances there
  float d_key[kKey], d_value[kValue];
};

}  // namespace vicinal::hopper::backward
