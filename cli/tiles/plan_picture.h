// A tile plan as pictures: all rows of it, or one.
#pragma once

#include "cli/tiles/tile_picture.h"
#include "runtime/plan/tile_plan.h"

namespace vicinal::cli {

// All tiles of a slice, the rows' owner down: of a sequence, where all rows visit the same tiles, a tile a
// place; of a single axis, whose tiles start where the windows do, a token a place, the owner's in the order
// of their tiles. Keys of the context stand behind a gap.
TilePicture picture_of(const plan::TilePlan& plan, std::int64_t slice, std::int64_t most);

// Coordinates [low, high) of an axis.
struct Interval {
  std::int64_t low, high;
};

// One of the grid's rows of a plan with two axes or more: the tiles that it visits over the grid of tokens.
class RowPicture {
 public:
  RowPicture(const plan::TilePlan& plan, std::int64_t slice, std::int64_t number);

  const plan::Row& row() const { return row_; }
  std::int64_t partial() const { return partial_; }
  std::int64_t full() const { return full_; }
  // By axis, what the row's tokens and the tiles that they reach cover between them.
  const std::vector<Interval>& reach() const { return reach_; }

  // The last two axes, for one coordinate of each axis before them.
  TilePicture plane(const std::vector<std::int64_t>& at, Interval down, Interval across,
                    std::int64_t most) const;
  // The keys of the context, so many to a line. Rows of keys visit none.
  TilePicture context(std::int64_t line, std::int64_t most) const;

 private:
  enum class Visit : std::uint8_t { skipped, partial, full };
  void paint(TilePicture& picture, std::int64_t tile, const Places& down, const Places& across) const;
  Places places(std::size_t axis, const Stretch& tokens, const Interval& frame) const;
  bool holds(std::size_t axis, const Stretch& tokens, std::int64_t coordinate) const;

  const plan::TileGrid& grid_;
  plan::Row row_;
  std::vector<Visit> visits_;  // by tile
  std::vector<Interval> reach_;
  std::int64_t partial_ = 0, full_ = 0;
};

}  // namespace vicinal::cli
