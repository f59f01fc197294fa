// The producer warp: copies a tile of queries and the tiles of keys and values that it visits into shared
// memory, ahead of the consumers.
#pragma once

#include "vicinal/hopper/boxes.cuh"
#include "vicinal/hopper/layout.cuh"
#include "vicinal/tokens.cuh"

namespace vicinal::hopper {

// The tiles of keys of one tile of queries, the last one first: under a causal mask it is the diagonal that
// is partial and that all of its consumers keep something of.
template <class V, int TileK>
class TileWalk {
 public:
  VICINAL_DEVICE TileWalk(const typename V::Arguments& arguments, const Work<V::rank>& work)
      : a(arguments),
        row(work.row),
        listed(work.first_run != work.last_run),
        first_run(work.first_run),
        run(work.last_run),
        at(listed ? 0 : work.row.all_tiles),
        last(0) {
    advance();
  }

  VICINAL_DEVICE bool done() const { return ended; }
  VICINAL_DEVICE bool context() const { return V::has_context && at >= row.grid_tiles; }
  // The tile's first key, as the note says it.
  VICINAL_DEVICE void first(int (&position)[V::rank]) const {
#pragma unroll
    for (int i = 0; i < V::rank; ++i)
      position[i] = row.span[i].position(V::rank == 1 ? TileK : static_cast<int>(a.tiles.k[i]), place[i]);
    if (context()) position[0] = static_cast<int>(at - row.grid_tiles) * TileK;
  }
  // Whether the mask has to be asked.
  VICINAL_DEVICE bool partial() const {
    if (listed) return !full;
    if (context()) return V::has_context_keeps || (at - row.grid_tiles + 1) * TileK > a.context;
    return V::has_keeps;
  }

  VICINAL_DEVICE void advance() {
    const bool jumps = at == last;
    if (jumps) {
      if (run == first_run) {
        ended = true;
        return;
      }
      const TileRun next = a.tiles.runs[--run];
      last = next.begin;
      at = next.end_and_full >> 1;
      full = next.end_and_full & 1;
    }
    --at;
    if (context()) return;
    if (V::rank == 1 || jumps || (V::has_context && at == row.grid_tiles - 1)) {
      row.digits(static_cast<int>(at), place);
    } else {
      bool borrow = true;
#pragma unroll
      for (int i = V::rank - 1; i >= 0; --i) {
        if (!borrow) continue;
        borrow = place[i] == 0;
        place[i] = borrow ? row.tiles[i] - 1 : place[i] - 1;
      }
    }
  }

 private:
  const typename V::Arguments& a;
  const TileRow<V::rank>& row;
  const bool listed;
  bool ended = false, full = false;
  const u32 first_run;
  u32 run;
  u32 at, last;  // tiles [last, at) of the run are still to come
  int place[V::rank] = {};
};

template <Variant V, int HeadDim, int ValueDim, class Schedule>
class Producer {
  using L = Layout<V, HeadDim, ValueDim, Schedule>;
  using Control = typename L::Control;
  static constexpr int kRank = V::rank;
  static constexpr int kTileK = L::kTileK;
  static constexpr bool kSequence =
      kRank == 1 && !V::dilated;  // the context's keys are copied like the grid's

 public:
  VICINAL_DEVICE Producer(const LaunchArguments<typename V::Arguments>& arguments, u32 shared, Control& c)
      : launch(arguments), a(arguments.forward), base(shared), control(c) {}

  // By one warp. Its first lane copies; where columns are staged, the others help with them.
  VICINAL_DEVICE void run() {
    if (!V::has_columns && lane() != 0) return;
    Place<1> q;
#pragma unroll 1
    for (Place<kWorkSlots> slot;; slot.advance(), q.advance()) {
      barrier_wait(shared_address(&control.work_full[slot.stage()]), slot.parity());
      const Work<kRank>& work = control.work[slot.stage()];
      if (!work.exists) break;
      copy(work, q);
      if (V::has_columns) __syncwarp();
      if (lane() == 0) barrier_arrive(shared_address(&control.work_empty[slot.stage()]));
    }
  }

 private:
  VICINAL_DEVICE void copy(const Work<kRank>& work, const Place<1>& q) {
    TileWalk<V, kTileK> walk(a, work);
    // Values follow one tile behind the keys, as their products do.
    bool first = true, behind_context = false;
    int behind[kRank] = {};
#pragma unroll 1
    while (!walk.done()) {
      int position[kRank];
      walk.first(position);
      const bool context = walk.context();
      u32 flags = (walk.partial() ? kPartial : 0) | (context ? kContext : 0);
      walk.advance();
      if (walk.done()) flags |= kLast;
      if (lane() == 0) {
        copy_keys(position, flags, work);
        if (first) copy_queries(work, q);
      }
      if constexpr (V::has_columns) stage_columns(position, flags, work);
      if (lane() == 0 && !first) copy_values(behind, behind_context, work);
      key.advance();
      if (!first) value.advance();
      first = false;
#pragma unroll
      for (int i = 0; i < kRank; ++i) behind[i] = position[i];
      behind_context = context;
    }
    if (first) {
      if (lane() == 0) copy_queries(work, q);
    } else {
      if (lane() == 0) copy_values(behind, behind_context, work);
      value.advance();
    }
  }

  // The stage is free: the first lane has waited for that before it copied. What only masks read is left out
  // where nobody asks them.
  VICINAL_DEVICE void stage_columns(const int (&position)[kRank], u32 flags, const Work<kRank>& work) {
    __syncwarp();
    if (!(flags & kContext) && (V::has_score_columns || flags & kPartial)) {
      Query<kRank> q = {};
      q.b = work.b;
      q.h = work.h;
      q.kv_h = work.kv_h;
#pragma unroll 1
      for (int i = lane(); i < kTileK; i += 32) {
        int rest = i;
        Token<kRank> token;
#pragma unroll
        for (int axis = kRank - 1; axis >= 0; --axis) {
          const Span& span = work.row.span[axis];
          const int place = position[axis] + take_digit(rest, static_cast<int>(a.tiles.k[axis]), axis == 0);
          token.local[axis] = coordinate_at(V::axis(a, axis), span, smaller(place, span.end - 1)) -
                              static_cast<int>(a.k_axis[axis].origin);
        }
        control.column[key.slot()][i] = V::column(a, q, key_of<V>(a, token));
      }
    }
    __syncwarp();
    if (lane() == 0) barrier_arrive(shared_address(&control.k_full[key.stage()]));
  }

  VICINAL_DEVICE void copy_queries(const Work<kRank>& work, const Place<1>& q) {
    const u32 full = shared_address(&control.q_full);
    barrier_wait(shared_address(&control.q_empty), q.parity() ^ 1);
    barrier_expect(full, L::kQueryBytes);
    int token[kRank];
#pragma unroll
    for (int i = 0; i < kRank; ++i)
      token[i] = work.row.queries[i].first - static_cast<int>(a.q_axis[i].origin);
    copy_tokens<V, L::kHeadSlabs, L::kTileQ>(a, &launch.maps.q, launch.boxes.q, a.tiles.q,
                                             launch.boxes.q_copy, token, work.h, work.b, base + L::kQueries,
                                             full, kEvictFirst);
  }

  VICINAL_DEVICE void copy_keys(const int (&position)[kRank], u32 flags, const Work<kRank>& work) {
    const u32 full = shared_address(&control.k_full[key.stage()]);
    barrier_wait(shared_address(&control.k_empty[key.stage()]), key.parity() ^ 1);
    TileNote<kRank>& note = control.note[key.slot()];
#pragma unroll
    for (int i = 0; i < kRank; ++i) note.first[i] = position[i];
    note.flags = flags;
    barrier_expect(full, L::kKeyBytes);
    copy_rows<L::kHeadSlabs>(&launch.maps.k, &launch.maps.context_k, launch.boxes.k, position,
                             flags & kContext, work, base + L::kKeys + key.stage() * L::kKeyBytes, full);
  }

  VICINAL_DEVICE void copy_values(const int (&position)[kRank], bool context, const Work<kRank>& work) {
    const u32 full = shared_address(&control.v_full[value.stage()]);
    barrier_wait(shared_address(&control.v_empty[value.stage()]), value.parity() ^ 1);
    barrier_expect(full, L::kValueBytes);
    copy_rows<L::kValueSlabs>(&launch.maps.v, &launch.maps.context_v, launch.boxes.v, position, context, work,
                              base + L::kValues + value.stage() * L::kValueBytes, full);
  }

  template <int Slabs>
  VICINAL_DEVICE void copy_rows(const TensorMap* grid, const TensorMap* context_map, const HeadSteps& steps,
                                const int (&position)[kRank], bool context, const Work<kRank>& work, u32 to,
                                u32 full) const {
    if constexpr (V::has_context && !kSequence) {
      if (context) {
#pragma unroll
        for (int slab = 0; slab < Slabs; ++slab)
          copy_box(to + slab * kTileK * kSlabRowBytes, context_map,
                   {slab * kSlabChannels, position[0], 0, work.kv_h, work.b}, full, kEvictLast);
        return;
      }
    }
    int token[kRank];
#pragma unroll
    for (int i = 0; i < kRank; ++i) {
      const Axis axis = V::axis(a, i);
      token[i] = (V::dilated ? coordinate_at(axis, work.row.span[i], position[i]) : position[i]) -
                 static_cast<int>(a.k_axis[i].origin);
    }
    if (V::has_context && kSequence && context) token[0] = position[0];
    copy_tokens<V, Slabs, kTileK>(a, V::has_context && kSequence && context ? context_map : grid, steps,
                                  a.tiles.k, launch.boxes.k_copy, token, work.kv_h, work.b, to, full,
                                  kEvictLast);
  }

  const LaunchArguments<typename V::Arguments>& launch;
  const typename V::Arguments& a;
  const u32 base;
  Control& control;
  Place<L::kStages> key, value;
};

}  // namespace vicinal::hopper
