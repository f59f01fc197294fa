// The tiles of a problem: which queries each holds, and which tiles of keys its neighborhoods reach. Closed
// form: nothing is stored per tile.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/binding/problem.h"
#include "templates/vicinal/tiles.cuh"

namespace vicinal::plan {

inline constexpr std::size_t kMaxRank = 16;

// Tokens of a tile along each axis, counted inside a dilation group; one number for a sequence.
struct TileShape {
  std::vector<int> q, k;

  std::int64_t queries() const;
  std::int64_t keys() const;
  friend bool operator==(const TileShape&, const TileShape&) = default;
};
// "4x8x8/2x8x8", queries first.
std::string print(const TileShape& shape);
// Errors (usage): what a shape of this rank looks like.
Result<TileShape> parse_tile_shape(const std::string& text, std::size_t rank);

// A tile of queries and the tiles of keys that it may have to visit, numbered with the last axis fastest. The
// context's tiles, of `keys()` tokens each, follow the grid's.
struct Row {
  std::vector<Stretch> queries;  // by axis
  std::vector<KeySpan> keys;
  std::int64_t grid_tiles = 0, tiles = 0;  // without and with the context's; 0 when the row has no query
};

class TileGrid {
 public:
  // A shape of another rank than the problem's is a bug of the caller's.
  TileGrid(const runtime::Problem& problem, TileShape shape);

  const runtime::Problem& problem() const { return *problem_; }
  const TileShape& shape() const { return shape_; }
  std::size_t rank() const { return axes_.size(); }
  const Axis& axis(std::size_t i) const { return axes_[i]; }

  std::int64_t rows() const { return rows_; }
  std::int64_t rows_along(std::size_t axis) const;
  void row(std::int64_t number, Row& row) const;
  // One axis of a row, for counts that are products of the axes'.
  Stretch queries(std::size_t axis, std::int64_t number) const;
  KeySpan keys(std::size_t axis, const Stretch& queries) const;

  // The keys of a tile, by axis; or, from row.grid_tiles on, a stretch of the context.
  bool is_context(const Row& row, std::int64_t tile) const { return tile >= row.grid_tiles; }
  void tile(const Row& row, std::int64_t number, std::vector<Stretch>& keys) const;
  // Whether the tile is as large as its shape, and whether the neighborhoods alone keep all of its pairs.
  bool whole(const Row& row, std::int64_t number) const;
  bool full(const Row& row, std::int64_t number) const;

  // The row that holds the local query `token`.
  std::int64_t row_of(std::int64_t token) const;

 private:
  const runtime::Problem* problem_;
  TileShape shape_;
  std::vector<Axis> axes_;
  bool neighborhood_;  // false: a sequence, whose keys are not its queries'
  std::int64_t rows_ = 1;
};

// The neighborhood along an axis of a problem that has axes.
Axis neighborhood_axis(const runtime::Problem& problem, std::size_t i);

}  // namespace vicinal::plan
