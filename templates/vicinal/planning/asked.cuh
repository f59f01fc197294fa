// A variant's mask over boxes of queries and keys, as whoever plans tiles on the device asks for it.
#pragma once

#include "vicinal/planning/input_ranges.cuh"
#include "vicinal/tile_row.cuh"

namespace vicinal::planning {

constexpr int kThreads = 256, kLanes = 32;

// A box of queries, and a box of keys, as the sets that a mask's symbols stand for.
template <int Rank>
struct QueryBox {
  int b, h, kv_h;
  Range position, index, coordinate[Rank];
};
template <int Rank>
struct KeyBox {
  Range position, coordinate[Rank];
};

// A variant's mask over boxes.
template <class V>
concept PlannedVariant = requires(const typename V::Arguments& a, const QueryBox<V::rank>& q,
                                  const KeyBox<V::rank>& k) {
  V::has_context;
  V::align_end;
  V::neighborhood;
  V::axis(a, 0).dilation;
  V::template keeps<false>(a, q, k).can_hold;
};

// Transcendental operations are computed where their operands are single numbers.
template <class F, class... Operands>
VICINAL_DEVICE RealRange computed(F f, Operands... x) {
  return (is_point(x) && ...) ? ranges::point(f(x.low...)) : ranges::any_real();
}

VICINAL_DEVICE Range tokens(const Stretch& s, int dilation) {
  return ranges::make_range(s.first, s.first + static_cast<i64>(s.count - 1) * dilation,
                            static_cast<u32>(dilation));
}
// Exact along one axis, bounds and a common step over several.
template <int Rank>
VICINAL_DEVICE Range flattened(const Range (&coordinate)[Rank], const GridAxis (&axis)[Rank]) {
  Range position = coordinate[0];
#pragma unroll
  for (int i = 1; i < Rank; ++i)
    position = add_i(mul_i(position, ranges::point(static_cast<int>(axis[i].extent))), coordinate[i]);
  return position;
}

// The mask, compiled once for all who ask.
template <class V, bool Context>
__device__ __noinline__ Truth asked(const typename V::Arguments& a, const QueryBox<V::rank>& q,
                                    const KeyBox<V::rank>& k) {
  return V::template keeps<Context>(a, q, k);
}

// What is kept of some tiles. `clear`: every tile is whole and no neighborhood leaves a pair out.
enum class Kept { none, some, all };
VICINAL_DEVICE Kept kept_of(Truth mask, bool clear) {
  return ranges::never(mask) ? Kept::none : ranges::always(mask) && clear ? Kept::all : Kept::some;
}

VICINAL_DEVICE int lane() {
  return static_cast<int>(threadIdx.x) % kLanes;
}
VICINAL_DEVICE i64 warp_of_grid() {
  return (static_cast<i64>(blockIdx.x) * kThreads + threadIdx.x) / kLanes;
}

// Slices of heads, and of all.
template <class V>
VICINAL_DEVICE i64 head_slices(const typename V::Arguments& a) {
  return a.tiles.slice_head == 0 ? 1 : a.heads / a.tiles.heads_per_slice;
}
template <class V>
VICINAL_DEVICE i64 slices(const typename V::Arguments& a) {
  return head_slices<V>(a) * (a.tiles.slice_batch == 0 ? 1 : a.batch);
}

// A tile's queries.
template <class V>
VICINAL_DEVICE QueryBox<V::rank> query_box(const typename V::Arguments& a, i64 slice,
                                           const Stretch (&tile)[V::rank]) {
  QueryBox<V::rank> queries;
  queries.b = static_cast<int>(slice / head_slices<V>(a));
  queries.h = static_cast<int>(slice % head_slices<V>(a) * a.tiles.heads_per_slice);
  queries.kv_h = queries.h / static_cast<int>(a.heads / a.kv_heads);
#pragma unroll
  for (int i = 0; i < V::rank; ++i) queries.coordinate[i] = tokens(tile[i], V::axis(a, i).dilation);
  queries.index = flattened(queries.coordinate, a.q_axis);
  queries.position =
      V::align_end ? add_i(queries.index, ranges::point(static_cast<int>(a.keys - a.tokens))) : queries.index;
  return queries;
}

}  // namespace vicinal::planning
