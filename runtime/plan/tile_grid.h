// The tiles of a problem: which tokens each holds, and which tiles its neighborhoods reach. Closed form:
// nothing is stored per tile.
//
// A row is a tile of one side, its owner's: of queries for a forward pass, of keys for a backward one. It
// visits tiles of the other side.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/binding/problem.h"
#include "templates/vicinal/tiles.cuh"

namespace vicinal::plan {

inline constexpr std::size_t kMaxRank = 16;

enum class Side : std::uint8_t { queries, keys };
constexpr Side other(Side side) {
  return side == Side::queries ? Side::keys : Side::queries;
}
constexpr const char* name_of(Side side) {
  return side == Side::queries ? "queries" : "keys";
}

// Tokens of a tile along each axis, counted inside a dilation group; one number for a sequence.
struct TileShape {
  std::vector<int> q, k;

  const std::vector<int>& of(Side side) const { return side == Side::queries ? q : k; }
  std::int64_t tokens(Side side) const;
  std::int64_t queries() const { return tokens(Side::queries); }
  std::int64_t keys() const { return tokens(Side::keys); }
  friend bool operator==(const TileShape&, const TileShape&) = default;
};
// "4x8x8/2x8x8", queries first.
std::string print(const TileShape& shape);
// Errors (usage): what a shape of this rank looks like.
Result<TileShape> parse_tile_shape(const std::string& text, std::size_t rank);

// A row and the tiles that it may have to visit, numbered with the last axis fastest. From `grid_tiles` on
// keys are the context's. A row of queries visits them after the grid's tiles, in tiles of `keys()` tokens.
// Where keys own the rows such tiles are rows, after the grid's; they visit all tiles of queries, numbered as
// these are when they own the rows, and some of these may have no token.
struct Row {
  std::vector<Stretch> tokens;             // by axis; of the context, one stretch
  std::vector<Span> reach;                 // by axis, of the grid's tiles
  std::int64_t grid_tiles = 0, tiles = 0;  // without and with the context's; 0 when the row has no token
};

class TileGrid {
 public:
  // A shape of another rank than the problem's is a bug of the caller's.
  TileGrid(const runtime::Problem& problem, TileShape shape, Side owner = Side::queries);

  const runtime::Problem& problem() const { return *problem_; }
  const TileShape& shape() const { return shape_; }
  Side owner() const { return owner_; }
  Side visited() const { return other(owner_); }
  std::size_t rank() const { return axes_.size(); }
  const Axis& axis(std::size_t i) const { return axes_[i]; }

  // The grid's rows, then the context's where keys own the rows.
  std::int64_t rows() const { return grid_rows_ + (owner_ == Side::keys ? context_tiles_ : 0); }
  std::int64_t grid_rows() const { return grid_rows_; }
  void row(std::int64_t number, Row& row) const;

  // One axis of a side cut into rows, for counts that are products of the axes'; and what such a row visits.
  std::int64_t rows_along(Side side, std::size_t axis) const;
  Stretch tokens(Side side, std::size_t axis, std::int64_t number) const;
  Span reach(std::size_t axis, const Stretch& tokens) const;

  // The tokens of a tile that a row visits, by axis; or a stretch of the context.
  bool is_context(const Row& row, std::int64_t tile) const { return tile >= row.grid_tiles; }
  void tile(const Row& row, std::int64_t number, std::vector<Stretch>& tokens) const;
  bool has_tokens(const Row& row, std::int64_t number) const;
  // Whether the visited tile is as large as its shape; and whether, besides, the neighborhoods alone keep all
  // its pairs with the row's tokens. Of those the row may have fewer than its shape: what a kernel computes
  // for the others it does not store.
  bool whole(const Row& row, std::int64_t number) const;
  bool full(const Row& row, std::int64_t number) const;

  // The row that holds the local token of the owner's.
  std::int64_t row_of(std::int64_t token) const;

 private:
  const std::vector<runtime::GridAxis>& axes_of(Side side) const;
  std::int64_t rows_of(Side side) const;
  bool row_tokens(Side side, std::int64_t number, std::vector<Stretch>& tokens) const;
  Stretch context_tile(std::int64_t number) const;
  void split(const Row& row, std::int64_t tile, std::int64_t* at) const;

  const runtime::Problem* problem_;
  TileShape shape_;
  Side owner_;
  std::vector<Axis> axes_;
  bool neighborhood_;  // false: a sequence, whose keys are not its queries'
  std::int64_t grid_rows_ = 0, context_tiles_ = 0;
};

// The neighborhood along an axis of a problem that has axes.
Axis neighborhood_axis(const runtime::Problem& problem, std::size_t i);

}  // namespace vicinal::plan
