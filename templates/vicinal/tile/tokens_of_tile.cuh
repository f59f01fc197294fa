// The tokens of a tile of queries and of a tile of keys in shared memory: what a variant is asked with, and
// where their rows lie in the tensors. And the walk over the tiles of keys that a tile of queries visits.
#pragma once

#include "vicinal/tile/shared_tile.cuh"
#include "vicinal/tile_row.cuh"
#include "vicinal/tokens.cuh"

namespace vicinal {

// Places past the last query repeat it, with an offset that says so.
template <class V, int Tile>
struct QueryTile {
  static constexpr int kRank = V::rank;
  Query<kRank> query[Tile];
  Reach<V> reach[V::neighborhood ? Tile : 1];
  i64 q_offset[Tile], out_offset[Tile], lse_offset[Tile];

  VICINAL_DEVICE bool exists(int r) const { return q_offset[r] != kNoRow; }

  VICINAL_DEVICE void locate(const typename V::Arguments& a, const TileRow<kRank>& tiles, int b, int h,
                             int r) {
    Token<kRank> token;
    bool inside = true;
    int rest = r;
#pragma unroll
    for (int i = kRank - 1; i >= 0; --i) {
      const int digit = take_digit(rest, static_cast<int>(a.tiles.q[i]), i == 0);
      inside = inside && digit < tiles.queries[i].count;
      token.local[i] = tiles.queries[i].first +
                       smaller(digit, tiles.queries[i].count - 1) * V::axis(a, i).dilation -
                       static_cast<int>(a.q_axis[i].origin);
    }
    query[r] = query_of<V>(a, b, h, token);
    q_offset[r] = inside ? token_offset(a.q, token) : kNoRow;
    out_offset[r] = token_offset(a.out, token);
    lse_offset[r] = token_offset(a.lse, token);
    if constexpr (V::neighborhood) reach[r].start(a, query[r]);
  }
};

// Places past the last key repeat it.
template <class V, int Tile>
struct KeyTile {
  static constexpr int kRank = V::rank;
  Key<kRank> key[Tile];
  i64 k_offset[Tile], v_offset[Tile];

  VICINAL_DEVICE bool exists(int j) const { return k_offset[j] != kNoRow; }

  VICINAL_DEVICE void locate(const typename V::Arguments& a, const TileRow<kRank>& tiles, int number, int j) {
    Token<kRank> token;
    bool inside = true;
    int rest = j;
#pragma unroll
    for (int i = kRank - 1; i >= 0; --i) {
      const int extent = static_cast<int>(a.tiles.k[i]);
      const Span& span = tiles.span[i];
      const int first = span.position(extent, take_digit(number, tiles.tiles[i], i == 0));
      const int position = first + take_digit(rest, extent, i == 0);
      inside = inside && position < span.end;
      token.local[i] = coordinate_at(V::axis(a, i), span, smaller(position, span.end - 1)) -
                       static_cast<int>(a.k_axis[i].origin);
    }
    key[j] = key_of<V>(a, token);
    k_offset[j] = inside ? token_offset(a.k, token) : kNoRow;
    v_offset[j] = inside ? token_offset(a.v, token) : kNoRow;
  }

  VICINAL_DEVICE void locate_context(const typename V::Arguments& a, int first, int j) {
    const int index = first + j;
    const bool inside = index < a.context;
    key[j] = context_key<V>(smaller(index, static_cast<int>(a.context) - 1));
    k_offset[j] = inside ? index * a.context_k.axis[0] : kNoRow;
    v_offset[j] = inside ? index * a.context_v.axis[0] : kNoRow;
  }
};

// The grid's keys and the context's differ by a run-time flag, so that products are compiled once; a variant
// without context never looks at it.
template <class V>
VICINAL_DEVICE bool mask_of(const typename V::Arguments& a, bool context, const Query<V::rank>& q,
                            const Key<V::rank>& k) {
  if constexpr (V::has_context) {
    if (context) return V::template mask<true>(a, q, k);
  }
  return V::template mask<false>(a, q, k);
}
template <class V>
VICINAL_DEVICE float score_of(const typename V::Arguments& a, bool context, const Query<V::rank>& q,
                              const Key<V::rank>& k, float s) {
  if constexpr (V::has_context) {
    if (context) return V::template score<true>(a, q, k, s);
  }
  return V::template score<false>(a, q, k, s);
}

// Whether query r keeps key j. A place without a query keeps what the query that it repeats does.
template <class V, int TileQ, int TileK>
VICINAL_DEVICE bool keeps_pair(const typename V::Arguments& a, bool context,
                               const QueryTile<V, TileQ>& queries, int r, const KeyTile<V, TileK>& keys,
                               int j) {
  bool keeps = keys.exists(j);
  if constexpr (V::neighborhood) {
    keeps = keeps && (context || queries.reach[r].holds(a, queries.query[r], keys.key[j]));
  }
  if constexpr (V::has_mask) keeps = keeps && mask_of<V>(a, context, queries.query[r], keys.key[j]);
  return keeps;
}

// A tile of keys to visit. `full`: every pair is kept, as far as the queries are there.
struct Visit {
  int number;  // among the grid's tiles, or the context's
  bool context, full;
};

// The tiles that a row of a plan visits, or all of them where there is no list. What it needs to know is read
// again for every tile: registers are for products.
template <class V>
class TileRuns {
 public:
  VICINAL_DEVICE TileRuns(const typename V::Arguments& a, const RowRuns& runs) : run_(runs.first) {
    tile_ = listed(a) && runs.first < runs.last ? a.tiles.runs[run_].begin : 0;
  }

  // `full`: the list says so.
  VICINAL_DEVICE bool next(const typename V::Arguments& a, u32 all_tiles, const RowRuns& runs, u32& tile,
                           bool& full) {
    const bool list = listed(a);
    while (run_ < runs.last) {
      const u32 word = list ? a.tiles.runs[run_].end_and_full : all_tiles << 1;
      if (tile_ < word >> 1) {
        tile = tile_++;
        full = (word & 1) != 0;
        return true;
      }
      if (++run_ < runs.last) tile_ = a.tiles.runs[run_].begin;  // a list: without one there is one run
    }
    return false;
  }

  VICINAL_DEVICE static bool listed(const typename V::Arguments& a) {
    return V::has_mask && a.tiles.row_runs != nullptr;
  }

 private:
  u32 run_, tile_;
};

// Of a row of queries: tiles of keys, the context's after the grid's.
template <class V>
class TileWalk {
 public:
  VICINAL_DEVICE TileWalk(const typename V::Arguments& a, const RowRuns& runs) : runs_(a, runs) {}

  VICINAL_DEVICE bool next(const typename V::Arguments& a, const TileRow<V::rank>& tiles, const RowRuns& runs,
                           Visit& visit) {
    u32 t;
    if (!runs_.next(a, tiles.all_tiles, runs, t, visit.full)) return false;
    visit.context = V::has_context && t >= tiles.grid_tiles;
    visit.number = static_cast<int>(visit.context ? t - tiles.grid_tiles : t);
    if (!V::has_mask) visit.full = !visit.context && tiles.full(a.tiles, visit.number);
    return true;
  }

 private:
  TileRuns<V> runs_;
};

// The runs of a row, of which there is one where nothing is listed.
template <class V>
VICINAL_DEVICE RowRuns runs_of(const typename V::Arguments& a, int b, int h, int number) {
  if (TileRuns<V>::listed(a)) return a.tiles.row_runs[slice_of(a.tiles, b, h) * a.tiles.rows + number];
  return {0, 1};
}

}  // namespace vicinal
