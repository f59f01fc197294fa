// The producer warp: copies a tile of queries and the tiles of keys and values that it visits into shared
// memory, ahead of the consumers.
#pragma once

#include "vicinal/hopper/layout.cuh"

namespace vicinal::hopper {

// The tiles of keys of one tile of queries, the last one first: under a causal mask it is the diagonal that
// is partial and that all of its consumers keep something of.
template <class V, int TileK>
class TileWalk {
 public:
  VICINAL_DEVICE TileWalk(const typename V::Arguments& arguments, const Work<V::rank>& work)
      : a(arguments),
        listed(work.first_run != work.last_run),
        begin(work.begin),
        grid_tiles(work.grid_tiles),
        first_run(work.first_run),
        run(work.last_run),
        at(listed ? 0 : work.grid_tiles + work.context_tiles),
        last(0) {
    advance();
  }

  VICINAL_DEVICE bool done() const { return ended; }
  VICINAL_DEVICE bool context() const { return V::has_context && at >= grid_tiles; }
  // Position of the tile's first key.
  VICINAL_DEVICE int first() const { return context() ? (at - grid_tiles) * TileK : begin + at * TileK; }
  // Whether the mask has to be asked.
  VICINAL_DEVICE bool partial() const {
    if (listed) return !full;
    if (context()) return V::has_context_keeps || first() + TileK > static_cast<int>(a.context);
    return V::has_keeps;
  }

  VICINAL_DEVICE void advance() {
    if (at == last) {
      if (run == first_run) {
        ended = true;
        return;
      }
      const TileRun next = a.tiles.runs[--run];
      last = static_cast<int>(next.begin);
      at = static_cast<int>(next.end_and_full >> 1);
      full = next.end_and_full & 1;
    }
    --at;
  }

 private:
  const typename V::Arguments& a;
  const bool listed;
  bool ended = false, full = false;
  const int begin, grid_tiles;
  const u32 first_run;
  u32 run;
  int at, last;  // tiles [last, at) of the run are still to come
};

template <Variant V, int HeadDim, int ValueDim, class Schedule>
class Producer {
  using L = Layout<V, HeadDim, ValueDim, Schedule>;
  using Control = typename L::Control;
  static constexpr int kRank = V::rank;
  static constexpr int kTileK = L::kTileK;

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
    int behind = 0;
#pragma unroll 1
    while (!walk.done()) {
      const int position = walk.first();
      const bool context = walk.context();
      u32 flags = (walk.partial() ? kPartial : 0) | (context ? kContext : 0);
      walk.advance();
      if (walk.done()) flags |= kLast;
      if (lane() == 0) {
        copy_keys(position, flags, work.kv_h, work.b);
        if (first) copy_queries(work, q);
      }
      if constexpr (V::has_columns) stage_columns(position, flags, work);
      if (lane() == 0 && !first) copy_values(behind, behind_context, work.kv_h, work.b);
      key.advance();
      if (!first) value.advance();
      first = false;
      behind = position;
      behind_context = context;
    }
    if (first) {
      if (lane() == 0) copy_queries(work, q);
    } else {
      if (lane() == 0) copy_values(behind, behind_context, work.kv_h, work.b);
      value.advance();
    }
  }

  // The stage is free: the first lane has waited for that before it copied. What only masks read is left out
  // where nobody asks them.
  VICINAL_DEVICE void stage_columns(int position, u32 flags, const Work<kRank>& work) {
    __syncwarp();
    if (!(flags & kContext) && (V::has_score_columns || flags & kPartial)) {
      Query<kRank> q = {};
      q.b = work.b;
      q.h = work.h;
      q.kv_h = work.kv_h;
      const int end = static_cast<int>(a.k_axis[0].origin + a.k_axis[0].local);
#pragma unroll 1
      for (int i = lane(); i < kTileK; i += 32) {
        Key<kRank> k;
        k.position = k.coordinate[0] = smaller(position + i, end - 1);
        control.column[key.slot()][i] = V::column(a, q, k);
      }
    }
    __syncwarp();
    if (lane() == 0) barrier_arrive(shared_address(&control.k_full[key.stage()]));
  }

  VICINAL_DEVICE void copy_queries(const Work<kRank>& work, const Place<1>& q) {
    const u32 full = shared_address(&control.q_full);
    barrier_wait(shared_address(&control.q_empty), q.parity() ^ 1);
    barrier_expect(full, L::kQueryBytes);
    const int x = work.queries[0].first - static_cast<int>(a.q_axis[0].origin);
#pragma unroll
    for (int slab = 0; slab < L::kHeadSlabs; ++slab)
      copy_box(base + L::kQueries + slab * L::kTileQ * kSlabRowBytes, &launch.maps.q,
               {slab * kSlabChannels, x, 0, work.h, work.b}, full, kEvictFirst);
  }

  VICINAL_DEVICE void copy_keys(int position, u32 flags, int kv_h, int b) {
    const u32 full = shared_address(&control.k_full[key.stage()]);
    barrier_wait(shared_address(&control.k_empty[key.stage()]), key.parity() ^ 1);
    control.note[key.slot()] = {position, flags};
    barrier_expect(full, L::kKeyBytes);
    copy_rows<L::kHeadSlabs>(flags & kContext ? &launch.maps.context_k : &launch.maps.k,
                             base + L::kKeys + key.stage() * L::kKeyBytes, local(position, flags & kContext),
                             kv_h, b, full);
  }

  VICINAL_DEVICE void copy_values(int position, bool context, int kv_h, int b) {
    const u32 full = shared_address(&control.v_full[value.stage()]);
    barrier_wait(shared_address(&control.v_empty[value.stage()]), value.parity() ^ 1);
    barrier_expect(full, L::kValueBytes);
    copy_rows<L::kValueSlabs>(context ? &launch.maps.context_v : &launch.maps.v,
                              base + L::kValues + value.stage() * L::kValueBytes, local(position, context),
                              kv_h, b, full);
  }

  VICINAL_DEVICE int local(int position, bool context) const {
    return V::has_context && context ? position : position - static_cast<int>(a.k_axis[0].origin);
  }

  template <int Slabs>
  VICINAL_DEVICE void copy_rows(const TensorMap* map, u32 to, int x, int kv_h, int b, u32 full) const {
#pragma unroll
    for (int slab = 0; slab < Slabs; ++slab)
      copy_box(to + slab * kTileK * kSlabRowBytes, map, {slab * kSlabChannels, x, 0, kv_h, b}, full,
               kEvictLast);
  }

  const LaunchArguments<typename V::Arguments>& launch;
  const typename V::Arguments& a;
  const u32 base;
  Control& control;
  Place<L::kStages> key, value;
};

}  // namespace vicinal::hopper
