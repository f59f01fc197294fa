// Masks as pictures: a matrix of shares between 0 and 1, for a terminal or as PNG.
#pragma once

#include <vicinal/result.h>

#include <cstdint>
#include <string>
#include <vector>

namespace vicinal::cli {

struct Picture {
  std::int64_t rows = 0, columns = 0;
  std::vector<float> share;  // of kept pairs, row by row

  Picture(std::int64_t r, std::int64_t c) : rows(r), columns(c), share(static_cast<std::size_t>(r * c)) {}
  float& at(std::int64_t r, std::int64_t c) { return share[static_cast<std::size_t>(r * columns + c)]; }
  float at(std::int64_t r, std::int64_t c) const { return share[static_cast<std::size_t>(r * columns + c)]; }
  // At most that many rows and columns, each cell the mean of what it covers.
  Picture shrunk(std::int64_t max_rows, std::int64_t max_columns) const;
};

// Two characters a cell, so that cells are square; a frame around it.
std::string terminal_text(const Picture& picture);

// Pixels row by row, red, green and blue.
struct Pixels {
  std::int64_t height = 0, width = 0;
  std::vector<unsigned char> rgb;

  Pixels(std::int64_t h, std::int64_t w)
      : height(h), width(w), rgb(std::size_t{3} * static_cast<std::size_t>(h * w)) {}
  unsigned char* at(std::int64_t y, std::int64_t x) {
    return &rgb[static_cast<std::size_t>(3 * (y * width + x))];
  }
};

// A PNG file. Errors: there is nothing to draw (spec), or the program was built without libpng (environment).
Result<std::string> png_file(const Pixels& pixels);
// White for nothing, deep blue for everything, scaled up to a readable size.
Result<std::string> png_file(const Picture& picture);

}  // namespace vicinal::cli
