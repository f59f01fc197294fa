// How tiles of queries and of keys lie along one axis. The one definition that the planner, the cost model
// and the kernels share.
//
// A tile is a box: along every axis some neighbouring tokens of one dilation group. One side's tiles are
// rows, the queries' in a forward pass and the keys' in a backward one: they are cut group by group. The
// tokens of the other side that the tokens of a row see, or are seen by, are a range of their group, since
// neighbouring windows touch; the tiles that a row visits are laid from where that range starts, not on a
// grid, so that a window costs no more tiles than its length asks for.
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

// Rows of a dilation group; groups differ by a token at most, and all are given as many as the largest.
VICINAL_HD int rows_per_group(const Axis& axis, int local, int tile) {
  return tile_count(tile_count(local, axis.dilation), tile);
}
VICINAL_HD int rows_along(const Axis& axis, int local, int tile) {
  return smaller(axis.dilation, local) * rows_per_group(axis, local, tile);
}

// The tokens of a row; the count of a group's last row may be less than the tile, or 0.
VICINAL_HD Stretch row_stretch(const Axis& axis, int origin, int local, int tile, int number) {
  const int per_group = rows_per_group(axis, local, tile);
  const int group = axis.dilation == 1 ? 0 : number / per_group;
  const int skipped = (number - group * per_group) * tile;
  const int size = tile_count(local - group, axis.dilation);
  return {origin + group + skipped * axis.dilation, larger(0, smaller(tile, size - skipped))};
}

// What a row visits along an axis, as positions of its dilation group: tokens [begin, end) go with some token
// of the row, [sure_begin, sure_end) with all of them.
struct Span {
  int begin, end, sure_begin, sure_end;
  int residue;  // of the group

  VICINAL_HD int tiles(int tile) const { return tile_count(end - begin, tile); }
  VICINAL_HD int position(int tile, int number) const { return begin + number * tile; }
  VICINAL_HD int size(int tile, int number) const { return smaller(tile, end - position(tile, number)); }
  // Whether the row keeps every pair with a tile that is wholly filled.
  VICINAL_HD bool full(int tile, int number) const {
    return position(tile, number) >= sure_begin && position(tile, number) + tile <= sure_end;
  }
};

// Tokens [origin, origin + local) where no neighborhood leaves any out.
VICINAL_HD Span whole_span(int origin, int local) {
  return {origin, origin + local, origin, origin + local, 0};
}

// The first group position at or after coordinate x.
VICINAL_HD int group_position(const Axis& axis, int residue, int x) {
  return axis.dilation == 1 ? x : tile_count(x - residue, axis.dilation);
}

// Between what the first and the last token of a stretch see, whose ends never step back from one token of
// the group to the next. Tokens [origin, origin + local) are at hand.
VICINAL_HD Span span_between(const Axis& axis, int residue, const KeyRange& first, const KeyRange& last,
                             int origin, int local) {
  const int from = group_position(axis, residue, origin), to = group_position(axis, residue, origin + local);
  Span span;
  span.residue = residue;
  span.begin = larger(first.begin, from);
  span.end = larger(span.begin, smaller(last.end, to));
  span.sure_begin = larger(last.begin, from);
  span.sure_end = smaller(first.end, to);
  return span;
}

VICINAL_HD int last_of(const Axis& axis, const Stretch& stretch) {
  return stretch.first + (stretch.count - 1) * axis.dilation;
}
VICINAL_HD int residue_of(const Axis& axis, const Stretch& stretch) {
  return axis.dilation == 1 ? 0 : stretch.first % axis.dilation;
}

// The keys that the queries of a stretch see, and the queries that see the keys of one. A stretch has a
// token.
VICINAL_HD Span key_span(const Axis& axis, const Stretch& queries, int origin, int local) {
  return span_between(axis, residue_of(axis, queries), neighborhood(axis, queries.first),
                      neighborhood(axis, last_of(axis, queries)), origin, local);
}
VICINAL_HD Span query_span(const Axis& axis, const Stretch& keys, int origin, int local) {
  return span_between(axis, residue_of(axis, keys), queries_seeing(axis, keys.first),
                      queries_seeing(axis, last_of(axis, keys)), origin, local);
}

// The coordinate of a group position.
VICINAL_HD int coordinate_at(const Axis& axis, const Span& span, int position) {
  return span.residue + position * axis.dilation;
}

}  // namespace vicinal
