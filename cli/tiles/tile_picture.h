// Tiles painted over a plane: what is skipped, masked and full, for a terminal or as PNG.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/picture.h"

namespace vicinal::cli {

enum class TileMark : std::uint8_t { partial, full, outside };

// Places first, first + step, ... along one side of a picture.
struct Places {
  std::int64_t first, count, step = 1;
};

// So that a side of so many places has `most` cells or fewer.
std::int64_t places_to_a_cell(std::int64_t extent, std::int64_t most);

// A plane of places, all skipped until a tile is painted over them; no two tiles share a place. A plane that
// is too large to draw is shrunk: a cell then stands for several places.
class TilePicture {
 public:
  // At most so many cells down and across.
  TilePicture(std::int64_t rows, std::int64_t columns, std::int64_t most);

  // Neighbouring cells of different tiles have an edge between them; 0 is no tile.
  void paint(const Places& down, const Places& across, TileMark mark, std::int64_t tile);
  // A tile that is left out: an edge and nothing else.
  void outline(const Places& down, const Places& across, std::int64_t tile);
  // The row's own tokens, by a letter.
  void mark(const Places& down, const Places& across, char letter);

  // Shares of a cell; what is left of 1 is skipped.
  struct Cell {
    double partial = 0, full = 0, outside = 0;
    char letter = 0;
    std::int64_t tile = 0;

    double visited() const { return partial + full; }
  };
  Cell cell(std::int64_t row, std::int64_t column) const;
  std::int64_t rows() const { return down_.cells; }
  std::int64_t columns() const { return across_.cells; }
  // Places to a cell.
  std::int64_t down() const { return down_.places; }
  std::int64_t across() const { return across_.places; }
  bool exact() const { return down() == 1 && across() == 1; }
  bool blank() const;

 private:
  struct Side {
    std::int64_t extent, places, cells;
    Side(std::int64_t extent, std::int64_t most);
    std::int64_t size(std::int64_t cell) const { return std::min(places, extent - cell * places); }
  };
  template <class Visit>
  void each_cell(const Places& down, const Places& across, Visit visit);

  Side down_, across_;
  std::vector<Cell> cells_;  // counts of places
};

// Two characters a cell, and a frame.
std::string terminal_text(const TilePicture& picture);
// A line that tells the shades of such a text.
std::string legend(const std::string& text);

// Pictures of one size on a sheet, in reading order: skipped white, partial orange, full blue, light grey
// outside, a dark line around what has a letter.
Pixels pixels(const std::vector<TilePicture>& sheet);

}  // namespace vicinal::cli
