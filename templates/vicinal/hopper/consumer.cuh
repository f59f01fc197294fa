// A consumer warpgroup: 64 queries of a tile from their first key to their output.
//
//   begin   scores = Q * K^T of a tile that may be partial, and their weights
//   step    scores = Q * K^T of a full tile on the tensor cores, and with them out += weights * V of the tile
//           before, while the scores turn into weights
//   end     out += weights * V of the last tile
//   weigh   scores -> limits, mask, core -> weights; online softmax in base 2
//   finish  out / sum through shared memory to the tensor, LSE
//
// Scores, weights and output stay in registers. The groups take turns at issuing their products, so that one
// computes weights while the tensor cores work for another.
#pragma once

#include "vicinal/hopper/boxes.cuh"
#include "vicinal/hopper/column_bits.cuh"
#include "vicinal/hopper/exact_rows.cuh"
#include "vicinal/hopper/layout.cuh"
#include "vicinal/hopper/softmax.cuh"
#include "vicinal/tokens.cuh"

namespace vicinal::hopper {

constexpr float kLeastFactor = 1e-30f;  // an exp in a factor may come to 0, and -inf * 0 would be NaN

template <Variant V, class T, int HeadDim, int ValueDim, class Schedule, class Products>
class Consumer {
  using L = Layout<V, HeadDim, ValueDim, Schedule>;
  using Control = typename L::Control;
  static constexpr int kRank = V::rank;
  static constexpr int kTileK = L::kTileK;
  static constexpr int kScores = kTileK / 2, kOut = ValueDim / 2;  // registers
  using Bits = ColumnBits<kTileK>;
  static constexpr bool kLimited = V::neighborhood || V::has_limits;
  static constexpr bool kSequence =
      kRank == 1 && !V::dilated;  // keys side by side have positions side by side
  // Of several axes most tiles are partial along one. A third copy of the loop's body is theirs.
  static constexpr bool kOverlapsPartial = kRank > 1;
  // A group's 64 queries are a box of their own, which may keep nothing of a tile that another needs.
  static constexpr bool kSkips = Schedule::skips && kLimited;
  using Note = TileNote<kRank>;
  // Without limits only the last tile of keys is partial, and it comes first.
  static constexpr bool kPartialAnywhere = kLimited || V::has_keeps || V::has_context;

 public:
  VICINAL_DEVICE Consumer(const LaunchArguments<typename V::Arguments>& arguments, u32 shared, Control& c,
                          int number)
      : launch(arguments), a(arguments.forward), base(shared), control(c), group(number) {}

  VICINAL_DEVICE void run() {
    if (Schedule::ping_pong && group == 0) named_arrive(turn_of(0), 2 * kGroupThreads);
    const u64 queries =
        operand(base + L::kQueries + group * kGroupRows * kSlabRowBytes, 16, 8 * kSlabRowBytes);
    Place<1> q;
#pragma unroll 1
    for (Place<kWorkSlots> slot;; slot.advance(), q.advance()) {
      barrier_wait(shared_address(&control.work_full[slot.stage()]), slot.parity());
      const Work<kRank>& work = control.work[slot.stage()];
      if (!uniform(work.exists != 0)) break;
      start(work);
      barrier_wait(shared_address(&control.q_full), q.parity());
      if (uniform(work.visits_any())) attend(queries);
      // The warp's products with the queries are done.
      if constexpr (L::kOutputApart) release(control.q_empty);
      finish(work);
      release(control.work_empty[slot.stage()]);
    }
    if (leads()) store_wait_read();
  }

 private:
  // The thread's rows in the tile.
  VICINAL_DEVICE int row(int r) const {
    return group * kGroupRows + warp() * 16 + lane() / 4 + 8 * r;
  }

  // The query of a row of the tile; rows past the last query repeat it.
  VICINAL_DEVICE Token<kRank> token(const Work<kRank>& work, int r) const {
    Token<kRank> token;
    int rest = r;
#pragma unroll
    for (int i = kRank - 1; i >= 0; --i) {
      const int digit = take_digit(rest, static_cast<int>(a.tiles.q[i]), i == 0);
      const Stretch& queries = work.row.queries[i];
      token.local[i] = queries.first - static_cast<int>(a.q_axis[i].origin) +
                       smaller(digit, queries.count - 1) * V::axis(a, i).dilation;
    }
    return token;
  }
  VICINAL_DEVICE bool exists(const Work<kRank>& work, int r) const {
    bool inside = true;
    int rest = r;
#pragma unroll
    for (int i = kRank - 1; i >= 0; --i) {
      const int digit = take_digit(rest, static_cast<int>(a.tiles.q[i]), i == 0);
      inside = inside && digit < work.row.queries[i].count;
    }
    return inside;
  }
  VICINAL_DEVICE Query<kRank> query(const Work<kRank>& work, int r) const {
    Query<kRank> q;
    q.b = work.b;
    q.h = work.h;
    q.kv_h = work.kv_h;
    place_query<V>(a, token(work, r), q);
    return q;
  }

  VICINAL_DEVICE void start(const Work<kRank>& work) {
    tile = &work.row;
    const Query<kRank> first = query(work, row(0));
    const float factor = V::factor(a, first), positive = factor < kLeastFactor ? kLeastFactor : factor;
    if constexpr (V::has_slope) {
      slope = V::slope(a, first) / positive;
      position = work.row.queries[0].first + row(0) + (first.position - first.index);
    }
    const float sink = V::has_sink ? V::sink(a, first) : -infinity();
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const Query<kRank> q = query(work, row(r));
      hoisted[r] = V::row(a, q);
      const float shift = V::has_shift ? V::shift(a, q) : 0.0f;
      softmax.start(positive, sink == -infinity() ? sink : sink - shift, r, lane() % 4 == 0);
    }
    if constexpr (kLimited) {
      // Four lanes share two rows.
      if (lane() % 4 < 2) {
        const int r = row(lane() % 4);
        control.limits[r] = key_limits<V>(a, query(work, r));
      }
      // Keys that all rows of the group keep, as far as limits go.
      named_sync(barrier_of(group), kGroupThreads);
      const KeyRanges<kRank>&one = control.limits[group * kGroupRows + lane()],
            &other = control.limits[group * kGroupRows + 32 + lane()];
#pragma unroll
      for (int i = 0; i < kRank; ++i) {
        sure.axis[i].begin = __reduce_max_sync(~0u, larger(one.axis[i].begin, other.axis[i].begin));
        sure.axis[i].end = __reduce_min_sync(~0u, smaller(one.axis[i].end, other.axis[i].end));
        if constexpr (kSkips) {
          reach.axis[i].begin = __reduce_min_sync(~0u, smaller(one.axis[i].begin, other.axis[i].begin));
          reach.axis[i].end = __reduce_max_sync(~0u, larger(one.axis[i].end, other.axis[i].end));
        }
      }
      // Past the tile's last query there is nothing to do.
      if (kSkips && !uniform(exists(work, group * kGroupRows + lane()) ||
                             exists(work, group * kGroupRows + 32 + lane())))
        reach.axis[0].end = reach.axis[0].begin;
    } else {
      sure = all_keys<V>(a);
    }
#pragma unroll
    for (int i = 0; i < kOut; ++i) out[i] = 0.0f;
  }

  VICINAL_DEVICE bool every_pair_is_kept(const Note& note) const {
    if (V::has_context && note.flags & kContext) return !(note.flags & kPartial);
    if (V::has_keeps && note.flags & kPartial) return false;
    return cut_axes(note) == 0;
  }
  // The axes along which some row of the group leaves out some of a tile of the grid's keys, as bits.
  VICINAL_DEVICE u32 cut_axes(const Note& note) const {
    u32 cut = 0;
#pragma unroll
    for (int i = 0; i < kRank; ++i) {
      const bool inside =
          note.first[i] >= sure.axis[i].begin && note.first[i] + extent(i) <= sure.axis[i].end;
      cut |= inside ? 0u : 1u << i;
    }
    return cut;
  }

  // Tokens of a tile of keys along an axis.
  VICINAL_DEVICE int extent(int axis) const {
    return kRank == 1 ? kTileK : static_cast<int>(a.tiles.k[axis]);
  }

  // The first tile is weighed alone, as are partial ones where they are few; those that follow overlap with
  // the product of the values before.
  VICINAL_DEVICE void attend(u64 queries) {
    Note note = next_note();
    leave_undefined(scores);
    bool last = false;
#pragma unroll 1
    while (!last) {
      last = uniform(note.flags & kLast);
      if (kSkips && uniform(keeps_nothing(note))) {
        skip();
        if (!last) note = next_note();
        continue;
      }
      begin(queries, note);
#pragma unroll 1
      while (!last) {
        note = next_note();
        if (kSkips && uniform(keeps_nothing(note))) break;
        if (!kPartialAnywhere || uniform(every_pair_is_kept(note))) {
          step<false>(queries, note);
        } else if constexpr (kOverlapsPartial) {
          step<true>(queries, note);
        } else {
          break;
        }
        last = uniform(note.flags & kLast);
      }
      end();
    }
  }

  VICINAL_DEVICE bool keeps_nothing(const Note& note) const {
    if (V::has_context && note.flags & kContext) return false;
    bool apart = false;
#pragma unroll
    for (int i = 0; i < kRank; ++i)
      apart = apart || note.first[i] >= reach.axis[i].end || note.first[i] + extent(i) <= reach.axis[i].begin;
    return apart;
  }

  // Its values are waited for like any, so that no group is more than a ring ahead of another.
  VICINAL_DEVICE void skip() {
    take_turn();
    pass_turn();
    release(control.k_empty[key.stage()]);
    barrier_wait(shared_address(&control.v_full[key.stage()]), key.parity());
    release(control.v_empty[key.stage()]);
    key.advance();
  }

  // The same for all threads, and the compiler should know: products are not to be issued by some of a warp.
  VICINAL_DEVICE static bool uniform(bool condition) {
    return __any_sync(~0u, condition);
  }

  VICINAL_DEVICE Note next_note() {
    barrier_wait(shared_address(&control.k_full[key.stage()]), key.parity());
    return control.note[key.slot()];
  }

  // Computed here, and not where it is used: what a release waits for, the producer waits for.
  VICINAL_DEVICE static u32 known(u32 address) {
    settle(address);
    return address;
  }

  // A tile of keys up to its weights.
  VICINAL_DEVICE void begin(u64 queries, const Note& note) {
    take_turn();
    multiply(queries);
    pass_turn();
    products_wait<0>();
    Products::hold(scores);
    release(control.k_empty[key.stage()]);
    weigh<true>(note);
    round_weights();
    // Where only the first tile is weighed here there is no output yet.
    if constexpr (kPartialAnywhere && (!kOverlapsPartial || kSkips) && !Schedule::early_rescale)
      softmax.rescale(out);
    key.advance();
  }

  // A tile of keys up to its weights, and the product of the tile before.
  template <bool Masked>
  VICINAL_DEVICE void step(u64 queries, const Note& note) {
    const Place<L::kStages> value = key.before();
    const u32 k_empty = known(shared_address(&control.k_empty[key.stage()])),
              v_empty = known(shared_address(&control.v_empty[value.stage()]));
    take_turn();
    multiply(queries);
    barrier_wait(shared_address(&control.v_full[value.stage()]), value.parity());
    if constexpr (Schedule::early_rescale) softmax.rescale(out);
    gather(value.stage());
    pass_turn();
    products_wait<1>();
    Products::hold(scores);
    release(k_empty);
    weigh<Masked>(note);
    products_wait<0>();
    Products::hold(out);
    release(v_empty);
    round_weights();
    if constexpr (!Schedule::early_rescale) softmax.rescale(out);
    key.advance();
  }

  // The product of the last tile.
  VICINAL_DEVICE void end() {
    const Place<L::kStages> value = key.before();
    barrier_wait(shared_address(&control.v_full[value.stage()]), value.parity());
    if constexpr (Schedule::early_rescale) softmax.rescale(out);
    gather(value.stage());
    products_wait<0>();
    Products::hold(out);
    Products::hold(weights);
    release(control.v_empty[value.stage()]);
  }

  VICINAL_DEVICE void take_turn() {
    if constexpr (Schedule::ping_pong) named_sync(turn_of(group), 2 * kGroupThreads);
  }
  VICINAL_DEVICE void pass_turn() {
    // By the thread's number, which takes no index arithmetic of the whole warp: that is short in the loop.
    const int next = static_cast<int>(threadIdx.x) / kGroupThreads % L::kGroups;
    if constexpr (Schedule::ping_pong) named_arrive(turn_of(next), 2 * kGroupThreads);
  }

  VICINAL_DEVICE void round_weights() {
#pragma unroll
    for (int i = 0; i < kTileK / 4; ++i) weights[i] = pack<T>(scores[2 * i], scores[2 * i + 1]);
  }

  // Puts scores = Q * K^T under way.
  VICINAL_DEVICE void multiply(u64 queries) {
    Products::scores(scores, queries,
                     operand(base + L::kKeys + key.stage() * L::kKeyBytes, 16, 8 * kSlabRowBytes));
  }

  // Puts out += weights * V under way.
  VICINAL_DEVICE void gather(u32 stage) {
    Products::values(
        out, weights,
        operand(base + L::kValues + stage * L::kValueBytes, kTileK * kSlabRowBytes, 8 * kSlabRowBytes));
  }

  // The key of a column, which counts from the thread's first. In a partial tile columns may lie past the
  // last key; they repeat it, since a variant's indices are only known to be inside for keys that are there.
  template <bool Context, bool Masked>
  VICINAL_DEVICE Key<kRank> key_at(const Note& note, int offset) const {
    if constexpr (Context || kSequence) {
      Key<kRank> k = {};
      k.position = note.first[0] + column() + offset;
      if constexpr (Masked) k.position = smaller(k.position, end_of_keys<Context>() - 1);
      k.coordinate[0] = k.position;
      return k;
    } else {
      int place[kRank] = {column() + offset};
      if constexpr (kRank > 1) columns().places(offset, place);
      Token<kRank> token;
#pragma unroll
      for (int i = 0; i < kRank; ++i) {
        const Span& span = tile->span[i];
        const int at = note.first[i] + place[i];
        token.local[i] = coordinate_at(V::axis(a, i), span, Masked ? smaller(at, span.end - 1) : at) -
                         static_cast<int>(a.k_axis[i].origin);
      }
      return key_of<V>(a, token);
    }
  }
  template <bool Context>
  VICINAL_DEVICE int end_of_keys() const {
    return static_cast<int>(Context ? a.context : a.k_axis[0].origin + a.k_axis[0].local);
  }
  VICINAL_DEVICE BoxColumns<kRank, kTileK> columns() const {
    return {launch.boxes.columns, a.tiles.k, column()};
  }
  VICINAL_DEVICE typename V::Column column_at(int offset) const {
    if constexpr (V::has_columns) return control.column[key.slot()][column() + offset];
    return {};
  }

  // Pairs by row, as far as these axes are concerned.
  VICINAL_DEVICE Bits kept(const Note& note, int r, u32 axes) const {
    if (V::has_context && note.flags & kContext) {
      Bits bits = columns_before<Bits>(end_of_keys<true>() - note.first[0] - column());
      if constexpr (V::has_context_keeps) bits &= asked<true>(note, r);
      return bits;
    }
    Bits bits = ~Bits{};
#pragma unroll
    for (int i = 0; i < kRank; ++i) {
      if (kRank > 1 && !(axes >> i & 1)) continue;
      const KeyRange keys = kLimited ? control.limits[row(r)].axis[i] : sure.axis[i];
      const int begin = keys.begin - note.first[i], end = keys.end - note.first[i];
      if constexpr (kRank > 1) {
        bits &= columns().between(i, begin, end);
      } else {
        bits = columns_before<Bits>(end - column());
        if constexpr (kLimited) bits &= ~columns_before<Bits>(begin - column());
      }
    }
    if (V::has_keeps && !V::simple_keeps && note.flags & kPartial) bits &= asked<false>(note, r);
    return bits;
  }
  // Not unrolled: the mask is compiled once.
  template <bool Context>
  VICINAL_DEVICE Bits asked(const Note& note, int r) const {
    Bits bits = 0;
#pragma unroll 1
    for (int i = 0; i < kTileK / 4; ++i) {
      const int offset = i / 2 * 8 + i % 2;
      const Key<kRank> k = key_at<Context, true>(note, offset);
      const bool keeps = V::template keeps<Context>(a, hoisted[r], column_at(offset), k);
      bits |= static_cast<Bits>(keeps) << i;
    }
    return bits;
  }

  // Sets the scores of pairs that are not kept to -inf, save for those that `open` leaves out.
  VICINAL_DEVICE void mask(const Note& note, bool (&open)[2][2]) {
    if constexpr (kRank == 1) {
      close(note, 0);
    } else {
      constexpr int kLast = kRank - 1;
      const bool context = V::has_context && note.flags & kContext;
      u32 cut = context ? 0 : cut_axes(note);
      if (cut >> kLast & 1 && extent(kLast) == 8) {
        cut ^= 1u << kLast;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const KeyRange keys = kLimited ? control.limits[row(r)].axis[kLast] : sure.axis[kLast];
          const int first = note.first[kLast] + column();
#pragma unroll
          for (int e = 0; e < 2; ++e) open[r][e] = keys.begin <= first + e && first + e < keys.end;
        }
      }
      if (context || cut != 0 || (V::has_keeps && note.flags & kPartial)) close(note, cut);
    }
  }

  // Sets the scores of pairs that are not kept to -inf, as far as these axes are concerned.
  VICINAL_DEVICE void close(const Note& note, u32 axes) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const Bits bits = kept(note, r, axes);
#pragma unroll
      for (int i = 0; i < kTileK / 4; ++i) {
        float& s = scores[i / 2 * 4 + i % 2 + 2 * r];
        s = bits >> i & 1 ? s : -infinity();
      }
    }
    if (!V::has_keeps || !V::simple_keeps || !(note.flags & kPartial)) return;
    if (V::has_context && note.flags & kContext) return;
#pragma unroll
    for (int i = 0; i < kTileK / 4; ++i) {
      const int offset = i / 2 * 8 + i % 2;
      const Key<kRank> k = key_at<false, true>(note, offset);
      const typename V::Column c = column_at(offset);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float& s = scores[i / 2 * 4 + i % 2 + 2 * r];
        s = V::template keeps<false>(a, hoisted[r], c, k) ? s : -infinity();
      }
    }
  }

  // Scores to weights.
  template <bool Masked>
  VICINAL_DEVICE void weigh(const Note& note) {
    if constexpr (V::has_gain && !Masked) {
      softmax.template weigh_gain<V, T>(
          scores, [&](float s) { return V::template core<false>(a, hoisted[0], {}, {}, s); });
      return;
    }
    if constexpr (V::has_core) {
      if (V::has_context && note.flags & kContext) {
        apply_core<true, Masked>(note);
      } else {
        apply_core<false, Masked>(note);
      }
    }
    // The distance of a row's first column of the thread comes later, with the maximum, and so costs nothing:
    // to the others it is 1, 8, 9 and so on more.
    float offset[2] = {};
    if constexpr (V::has_slope) {
#pragma unroll
      for (int i = 0; i < kScores; ++i)
        scores[i] = fmaf(slope, static_cast<float>(i / 4 * 8 + i % 2), scores[i]);
#pragma unroll
      for (int r = 0; r < 2; ++r)
        offset[r] = slope * static_cast<float>(note.first[0] + column() - (position + 8 * r));
    }
    bool open[2][2] = {{true, true}, {true, true}};
    if constexpr (Masked) mask(note, open);
    softmax.template weigh<V::has_slope, Masked && (kRank > 1)>(scores, offset, open);
  }

  template <bool Context, bool Masked>
  VICINAL_DEVICE void apply_core(const Note& note) {
    const auto core = [&](float s, int i) {
      const int offset = i / 4 * 8 + i % 2;
      return V::template core<Context>(a, i / 2 % 2 == 0 ? hoisted[0] : hoisted[1], column_at(offset),
                                       key_at<Context, Masked>(note, offset), s);
    };
    if constexpr (Masked) {
      in_parts(scores, core);
    } else {
#pragma unroll
      for (int i = 0; i < kScores; ++i) scores[i] = core(scores[i], i);
    }
  }

  VICINAL_DEVICE void finish(const Work<kRank>& work) {
    float norm[2], lse[2];
    softmax.finish(norm, lse);
    float check = 0.0f;  // NaN once anything in `out` is not finite
#pragma unroll
    for (int i = 0; i < kOut; ++i) {
      check = fmaf(out[i], 0.0f, check);
      out[i] *= norm[i / 2 % 2];
    }
    if constexpr (V::has_shift || V::has_output) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const Query<kRank> q = query(work, row(r));
        if constexpr (V::has_shift) lse[r] += V::shift(a, q);
        if constexpr (V::has_output) {
#pragma unroll
          for (int i = 0; i < kOut; ++i)
            if (i / 2 % 2 == r) out[i] = V::output(a, q, out[i], lse[r]);
        }
      }
    }
    const bool poisoned = store_out(work, check != 0.0f);
    // Four lanes share two rows.
    if (a.lse.data != nullptr && lane() % 4 < 2) {
      const int r = row(lane() % 4);
      float* const to = static_cast<float*>(a.lse.data) + work.b * a.lse.batch + work.h * a.lse.head;
      if (exists(work, r)) to[token_offset(a.lse, token(work, r))] = lane() % 4 == 0 ? lse[0] : lse[1];
    }
    if (poisoned) {
      if (leads()) store_wait();
      named_sync(barrier_of(group), kGroupThreads);
      const auto row_of_warp = [&](int r) {
        const int number = group * kGroupRows + warp() * 16 + r;
        return ExactRow<kRank>{token(work, number), kLimited ? control.limits[number] : sure,
                               exists(work, number)};
      };
      ExactRows<V, T, HeadDim, ValueDim>{a, work.b, work.h}.redo(__ballot_sync(~0u, check != 0.0f),
                                                                 row_of_warp);
    }
    if (!L::kOutputApart && leads()) {
      store_wait_read();
      barrier_arrive(shared_address(&control.q_empty));
    }
  }

  // Through the group's rows of the tile of queries, which nobody reads any more. Returns whether any thread
  // of the group says so.
  VICINAL_DEVICE bool store_out(const Work<kRank>& work, bool poisoned) {
    if constexpr (L::kOutputApart) {
      // The tile before has left.
      if (leads()) store_wait_read();
      named_sync(barrier_of(group), kGroupThreads);
    }
    const int r = group * kGroupRows + warp() * 16 + lane() % 16;
#pragma unroll
    for (int d = 0; d < ValueDim; d += 16) {
      const int chunk = d / 8 + lane() / 16;  // of 8 channels
      const u32 to = staged_chunk<L::kTileQ>(base + L::kOutput, r, chunk);
      const float(&o)[kOut] = out;
      const int i = d / 2;
      const bool half = d + 8 >= ValueDim;  // the second group of 8 is past the last channel
      store_matrices(to, pack<T>(o[i], o[i + 1]), pack<T>(o[i + 2], o[i + 3]),
                     half ? 0u : pack<T>(o[half ? i : i + 4], o[half ? i : i + 5]),
                     half ? 0u : pack<T>(o[half ? i : i + 6], o[half ? i : i + 7]));
    }
    if constexpr (V::dilated) store_rows(work);
    async_proxy_fence();
    poisoned = named_any(barrier_of(group), kGroupThreads, poisoned);
    if (V::dilated || !leads()) return poisoned;
    // Past the last query nothing is written.
    int first[kRank], rest = group * kGroupRows;
#pragma unroll
    for (int i = kRank - 1; i >= 0; --i)
      first[i] = work.row.queries[i].first - static_cast<int>(a.q_axis[i].origin) +
                 take_digit(rest, static_cast<int>(a.tiles.q[i]), i == 0);
#pragma unroll
    for (int slab = 0; slab < L::kValueSlabs; ++slab)
      store_box(&launch.maps.out,
                box_origin<kRank>(launch.boxes.out, slab * kSlabChannels, first, work.h, work.b),
                base + L::kOutput + (slab * L::kTileQ + group * kGroupRows) * kSlabRowBytes);
    store_commit();
    return poisoned;
  }

  VICINAL_DEVICE void store_rows(const Work<kRank>& work) const {
    __syncwarp();
    T* const to = static_cast<T*>(a.out.data) + work.b * a.out.batch + work.h * a.out.head;
    store_staged_rows<ValueDim, L::kTileQ>(base + L::kOutput, group * kGroupRows + warp() * 16, [&](int r) {
      return exists(work, r) ? to + token_offset(a.out, token(work, r)) : nullptr;
    });
  }

  const LaunchArguments<typename V::Arguments>& launch;
  const typename V::Arguments& a;
  const u32 base;
  Control& control;
  const int group;

  Place<L::kStages> key;

  // Of the tile of queries.
  float slope;   // of a distance, as a score
  int position;  // of the thread's first row
  typename V::Row hoisted[2];
  // Keys that every row of the group keeps, and that any does.
  KeyRanges<kRank> sure, reach;
  const TileRow<kRank>* tile;

  Softmax softmax;
  float scores[kScores];
  u32 weights[kTileK / 4];
  float out[kOut];
};

}  // namespace vicinal::hopper
