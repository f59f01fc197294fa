// Neighborhood arithmetic: which keys a query sees along one axis, and which queries see a key. The one
// definition that the compiler, the interpreter and every kernel share.
//
// Along an axis of `extent` tokens, dilation splits the tokens into groups of equal residue; a query sees
// keys of its own group only. Within a group tokens are numbered p = x / dilation, and a query sees the
// half-open range of group positions that neighborhood() returns. Non-causal windows keep their size at the
// borders by shifting inward; causal windows trail the query. `stride` neighbouring queries share the window
// of one leader. (The scheme is neighborhood attention's: Hassani et al., "Neighborhood Attention
// Transformer", CVPR 2023, and "Generalized Neighborhood Attention", 2025.)
#pragma once

#include "vicinal/platform.cuh"

namespace vicinal {

struct Axis {
  int extent;    // tokens along the axis, of the whole grid
  int window;    // keys per query, counted inside the dilation group; 0: all of the group
  int dilation;  // >= 1
  int stride;    // >= 1, <= window unless window is 0
  bool causal;
};

struct KeyRange {
  int begin, end;  // half open, in positions of the dilation group
};
using QueryRange = KeyRange;

// Tokens x in [0, extent) with x % dilation == residue.
VICINAL_HD int group_size(int extent, int dilation, int residue) {
  return residue < extent ? (extent - residue - 1) / dilation + 1 : 0;
}

// The keys that the query at coordinate x sees, as positions of x's dilation group.
VICINAL_HD KeyRange neighborhood(const Axis& axis, int x) {
  const int residue = axis.dilation == 1 ? 0 : x % axis.dilation;
  const int p = axis.dilation == 1 ? x : x / axis.dilation;
  const int n = group_size(axis.extent, axis.dilation, residue);
  if (axis.window == 0) return {0, axis.causal ? p + 1 : n};

  const int first_of_stride = axis.stride == 1 ? p : p / axis.stride * axis.stride;
  const int offset = axis.stride == 1 ? 0 : (axis.causal ? axis.stride - 1 : axis.stride / 2);
  const int leader = first_of_stride < n - 1 - offset ? first_of_stride + offset : n - 1;
  if (axis.causal) {
    const int begin = leader - axis.window + 1;
    return {begin > 0 ? begin : 0, p + 1};
  }
  const int centred = leader - axis.window / 2;
  const int last = n - axis.window;
  const int begin = centred < 0 ? 0 : (centred < last ? centred : last);
  return {begin, begin + axis.window};
}

// The first query of a group of n whose leader stands at position `leader` or after; n where none does.
VICINAL_HD int first_led_from(const Axis& axis, int n, int leader) {
  const int first_of_stride = leader - (axis.causal ? axis.stride - 1 : axis.stride / 2);
  if (axis.stride == 1 || first_of_stride <= 0) return first_of_stride < 0 ? 0 : first_of_stride;
  const int before = (first_of_stride - 1) / axis.stride * axis.stride;
  return axis.stride < n - before ? before + axis.stride : n;
}

// The queries that see the key at coordinate y, as positions of y's dilation group: neighborhood() turned
// round. They are neighbours, and their ends never step back from one key of the group to the next.
VICINAL_HD QueryRange queries_seeing(const Axis& axis, int y) {
  const int residue = axis.dilation == 1 ? 0 : y % axis.dilation;
  const int r = axis.dilation == 1 ? y : y / axis.dilation;
  const int n = group_size(axis.extent, axis.dilation, residue);
  if (axis.window == 0) return {axis.causal ? r : 0, n};

  // How far before its leader a window starts. Those at the far border go no further.
  const int before = axis.causal ? axis.window - 1 : axis.window / 2;
  const int end = r >= n - axis.window ? n : first_led_from(axis, n, r + 1 + before);
  if (axis.causal) return {r, end};
  return {r < axis.window ? 0 : first_led_from(axis, n, r - axis.window + 1 + before), end};
}

// Whether the key at coordinate y is seen by a query at coordinate x whose range is `range`.
VICINAL_HD bool contains(const Axis& axis, const KeyRange& range, int x, int y) {
  if (axis.dilation == 1) return y >= range.begin && y < range.end;
  if (y % axis.dilation != x % axis.dilation) return false;
  const int r = y / axis.dilation;
  return r >= range.begin && r < range.end;
}

// Whether a window fits its axis: the smallest dilation group must hold it. 64-bit, so that no product wraps.
VICINAL_HD bool window_fits(const Axis& axis) {
  return axis.window == 0 ? axis.dilation <= axis.extent || axis.extent == 0
                          : static_cast<i64>(axis.window) * axis.dilation <= axis.extent;
}

}  // namespace vicinal
