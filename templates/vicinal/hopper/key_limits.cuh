// The keys that a query keeps as far as windows and limits go.
#pragma once

#include "vicinal/hopper/contract.cuh"
#include "vicinal/tiles.cuh"

namespace vicinal::hopper {

// The keys at hand, of a grid without dilation.
template <class V>
VICINAL_DEVICE KeyRanges<V::rank> all_keys(const typename V::Arguments& a) {
  KeyRanges<V::rank> keys;
#pragma unroll
  for (int i = 0; i < V::rank; ++i) {
    const int origin = static_cast<int>(a.k_axis[i].origin);
    keys.axis[i] = {origin, origin + static_cast<int>(a.k_axis[i].local)};
  }
  return keys;
}

// Of these, those that a query keeps as far as limits go, along each axis as positions of its dilation group.
template <class V>
VICINAL_DEVICE KeyRanges<V::rank> key_limits(const typename V::Arguments& a, const Query<V::rank>& q) {
  KeyRanges<V::rank> keys = all_keys<V>(a);
  const auto narrow = [](KeyRange& keys, const KeyRange& to) {
    keys.begin = larger(keys.begin, to.begin);
    keys.end = smaller(keys.end, to.end);
  };
  if constexpr (V::neighborhood) {
#pragma unroll
    for (int i = 0; i < V::rank; ++i) {
      const Axis axis = V::axis(a, i);
      const int residue = residue_of(axis, {q.coordinate[i], 1});
      KeyRange& range = keys.axis[i];
      range = {group_position(axis, residue, range.begin), group_position(axis, residue, range.end)};
      narrow(range, neighborhood(axis, q.coordinate[i]));
    }
  }
  if constexpr (V::has_limits) narrow(keys.axis[0], V::limits(a, q));
  return keys;
}

}  // namespace vicinal::hopper
