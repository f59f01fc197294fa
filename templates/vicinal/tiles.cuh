// How tiles of queries and of keys lie along one axis. The one definition that the planner, the cost model
// and the kernels share.
//
// A tile is a box: along every axis some neighbouring tokens of one dilation group. Queries are cut into
// tiles group by group. The keys that the queries of a tile see between them are a range of their group,
// since neighbouring windows touch; tiles of keys are laid from where that range starts, not on a grid, so
// that a window costs no more tiles than its length asks for.
#pragma once

#include "vicinal/arguments.cuh"
#include "vicinal/geometry.cuh"

namespace vicinal {

// Tokens first, first + dilation, ... of an axis, as coordinates of the whole grid.
struct Stretch {
  int first, count;
};

VICINAL_HD int smaller(int x, int y) {
  return x < y ? x : y;
}
VICINAL_HD int larger(int x, int y) {
  return x < y ? y : x;
}
// How many tiles hold so many tokens.
VICINAL_HD int tile_count(int tokens, int tile) {
  return tokens > 0 ? (tokens - 1) / tile + 1 : 0;
}

// Tiles of a dilation group; groups differ by a token at most, and all are given as many as the largest.
VICINAL_HD int query_tiles_per_group(const Axis& axis, int local, int tile) {
  return tile_count(tile_count(local, axis.dilation), tile);
}
VICINAL_HD int query_tiles(const Axis& axis, int local, int tile) {
  return smaller(axis.dilation, local) * query_tiles_per_group(axis, local, tile);
}

// The queries of a tile; the count of a group's last tile may be less than the tile, or 0.
VICINAL_HD Stretch query_stretch(const Axis& axis, int origin, int local, int tile, int number) {
  const int per_group = query_tiles_per_group(axis, local, tile);
  const int group = axis.dilation == 1 ? 0 : number / per_group;
  const int skipped = (number - group * per_group) * tile;
  const int size = tile_count(local - group, axis.dilation);
  return {origin + group + skipped * axis.dilation, larger(0, smaller(tile, size - skipped))};
}

// The keys of an axis that the queries of a stretch see, as positions of their dilation group: [begin, end)
// some query sees, [sure_begin, sure_end) all see.
struct KeySpan {
  int begin, end, sure_begin, sure_end;
  int residue;  // of the group

  VICINAL_HD int tiles(int tile) const { return tile_count(end - begin, tile); }
  VICINAL_HD int position(int tile, int number) const { return begin + number * tile; }
  VICINAL_HD int size(int tile, int number) const { return smaller(tile, end - position(tile, number)); }
  // Whether every query of the stretch sees every key of a tile that is wholly filled.
  VICINAL_HD bool full(int tile, int number) const {
    return position(tile, number) >= sure_begin && position(tile, number) + tile <= sure_end;
  }
};

// Keys [origin, origin + local) where no neighborhood leaves any out.
VICINAL_HD KeySpan all_keys(int origin, int local) {
  return {origin, origin + local, origin, origin + local, 0};
}

// The first group position at or after coordinate x.
VICINAL_HD int group_position(const Axis& axis, int residue, int x) {
  return axis.dilation == 1 ? x : tile_count(x - residue, axis.dilation);
}

// `stretch` has a query. Keys [origin, origin + local) are at hand.
VICINAL_HD KeySpan key_span(const Axis& axis, const Stretch& stretch, int origin, int local) {
  // Both ends of a window never step back from one query of the group to the next.
  const KeyRange first = neighborhood(axis, stretch.first);
  const KeyRange last = neighborhood(axis, stretch.first + (stretch.count - 1) * axis.dilation);
  const int residue = axis.dilation == 1 ? 0 : stretch.first % axis.dilation;
  const int from = group_position(axis, residue, origin), to = group_position(axis, residue, origin + local);
  KeySpan span;
  span.residue = residue;
  span.begin = larger(first.begin, from);
  span.end = larger(span.begin, smaller(last.end, to));
  span.sure_begin = larger(last.begin, from);
  span.sure_end = smaller(first.end, to);
  return span;
}

// The coordinate of a group position.
VICINAL_HD int coordinate_at(const Axis& axis, const KeySpan& span, int position) {
  return span.residue + position * axis.dilation;
}

}  // namespace vicinal
