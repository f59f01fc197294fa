#include "cli/tiles/tile_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "compiler/support/check.h"

namespace vicinal::cli {

// Tiles mostly have extents that are powers of two: so have cells, and few of them are mixed.
std::int64_t places_to_a_cell(std::int64_t extent, std::int64_t most) {
  const std::int64_t least = std::max<std::int64_t>((extent + most - 1) / most, 1);
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(least)));
}

TilePicture::Side::Side(std::int64_t n, std::int64_t most)
    : extent(n), places(places_to_a_cell(n, most)), cells((n + places - 1) / places) {}

TilePicture::TilePicture(std::int64_t rows, std::int64_t columns, std::int64_t most)
    : down_(rows, most),
      across_(columns, most),
      cells_(static_cast<std::size_t>(down_.cells * across_.cells)) {}

// visit(cell, how many places of it) for the cells that hold any of the places.
template <class Visit>
void TilePicture::each_cell(const Places& down, const Places& across, Visit visit) {
  using Part = std::pair<std::int64_t, std::int64_t>;  // cell, places
  const auto parts = [](const Side& side, const Places& p) {
    VICINAL_ASSERT(p.count == 0 || (p.first >= 0 && p.first + (p.count - 1) * p.step < side.extent),
                   "a tile lies in its picture");
    std::vector<Part> result;
    for (std::int64_t i = 0; i < p.count;) {
      const std::int64_t cell = (p.first + i * p.step) / side.places;
      // To the first place that lies in another cell.
      const std::int64_t next = ((cell + 1) * side.places - p.first + p.step - 1) / p.step;
      const std::int64_t end = std::min(p.count, next);
      result.emplace_back(cell, end - i);
      i = end;
    }
    return result;
  };
  const std::vector<Part> columns = parts(across_, across);
  for (const auto& [row, height] : parts(down_, down))
    for (const auto& [column, width] : columns)
      visit(cells_[static_cast<std::size_t>(row * across_.cells + column)],
            static_cast<double>(height * width));
}

void TilePicture::paint(const Places& down, const Places& across, TileMark mark, std::int64_t tile) {
  each_cell(down, across, [&](Cell& cell, double places) {
    (mark == TileMark::partial ? cell.partial : mark == TileMark::full ? cell.full : cell.outside) += places;
    cell.tile = tile;
  });
}

void TilePicture::outline(const Places& down, const Places& across, std::int64_t tile) {
  each_cell(down, across, [&](Cell& cell, double) { cell.tile = tile; });
}

void TilePicture::mark(const Places& down, const Places& across, char letter) {
  each_cell(down, across, [&](Cell& cell, double) { cell.letter = letter; });
}

TilePicture::Cell TilePicture::cell(std::int64_t row, std::int64_t column) const {
  Cell cell = cells_[static_cast<std::size_t>(row * across_.cells + column)];
  const auto area = static_cast<double>(down_.size(row) * across_.size(column));
  cell.partial /= area;
  cell.full /= area;
  cell.outside /= area;
  return cell;
}

bool TilePicture::blank() const {
  return std::ranges::all_of(cells_, [](const Cell& c) { return c.visited() == 0; });
}

std::string terminal_text(const TilePicture& picture) {
  std::string line;
  for (std::int64_t c = 0; c < picture.columns(); ++c) line += "──";
  std::string text = "┌" + line + "┐\n";
  for (std::int64_t r = 0; r < picture.rows(); ++r) {
    text += "│";
    for (std::int64_t c = 0; c < picture.columns(); ++c) {
      const TilePicture::Cell cell = picture.cell(r, c);
      const char* shade = cell.outside >= 1   ? "╱"
                          : cell.full >= 1    ? "█"
                          : cell.partial >= 1 ? "░"
                          : cell.partial > 0  ? "▒"
                          : cell.full > 0     ? "▓"
                                              : " ";
      text += cell.letter != 0 ? std::string(1, cell.letter) : shade;
      text += shade;
    }
    text += "│\n";
  }
  return text + "└" + line + "┘\n";
}

namespace {

using Color = std::array<double, 3>;
constexpr Color kSkipped = {255, 255, 255}, kPartial = {245, 158, 66}, kFull = {24, 78, 168},
                kOutside = {225, 225, 225}, kMarked = {20, 20, 20};

Color color(const TilePicture::Cell& cell) {
  // A cell of which only a little is visited still shows.
  constexpr double kLeast = 0.35;
  const double visited = cell.visited();
  const double raise = visited > 0 && visited < kLeast ? kLeast / visited : 1;
  const double partial = raise * cell.partial, full = raise * cell.full,
               outside = std::min(cell.outside, 1 - partial - full);
  Color mix;
  for (std::size_t i = 0; i < 3; ++i)
    mix[i] = kSkipped[i] + partial * (kPartial[i] - kSkipped[i]) + full * (kFull[i] - kSkipped[i]) +
             outside * (kOutside[i] - kSkipped[i]);
  return mix;
}

class Sheet {
 public:
  explicit Sheet(const std::vector<TilePicture>& pictures) : pictures_(pictures) {
    for (const TilePicture& p : pictures) {
      rows_ = std::max(rows_, p.rows());
      columns_ = std::max(columns_, p.columns());
    }
    const auto count = static_cast<std::int64_t>(pictures.size());
    // As wide as high, or a little wider.
    const double share =
        static_cast<double>(rows_) / static_cast<double>(std::max<std::int64_t>(columns_, 1));
    abreast_ =
        std::clamp<std::int64_t>(std::llround(std::ceil(std::sqrt(share * static_cast<double>(count)))), 1,
                                 std::max<std::int64_t>(count, 1));
    const std::int64_t longest = std::max({columns_ * abreast_, rows_ * lines(), std::int64_t{1}});
    scale_ = std::clamp<std::int64_t>((count > 1 ? 2 : 1) * kTarget / longest, 1, 48);
  }

  Pixels draw() {
    if (rows_ * columns_ == 0) return {0, 0};
    Pixels pixels(kGap + lines() * (rows_ * scale_ + kGap), kGap + abreast_ * (columns_ * scale_ + kGap));
    for (std::int64_t y = 0; y < pixels.height; ++y)
      for (std::int64_t x = 0; x < pixels.width; ++x) set(pixels, y, x, kOutside, 1);
    for (std::size_t i = 0; i < pictures_.size(); ++i) {
      const auto n = static_cast<std::int64_t>(i);
      draw(pictures_[i], pixels, kGap + n / abreast_ * (rows_ * scale_ + kGap),
           kGap + n % abreast_ * (columns_ * scale_ + kGap));
    }
    return pixels;
  }

 private:
  static constexpr std::int64_t kTarget = 960, kGap = 12;

  std::int64_t lines() const {
    return (static_cast<std::int64_t>(pictures_.size()) + abreast_ - 1) / abreast_;
  }

  static void set(Pixels& pixels, std::int64_t y, std::int64_t x, const Color& color, double shade) {
    for (std::size_t i = 0; i < 3; ++i)
      pixels.at(y, x)[i] = static_cast<unsigned char>(std::lround(color[i] * shade));
  }

  void draw(const TilePicture& p, Pixels& pixels, std::int64_t top, std::int64_t left) const {
    for (std::int64_t r = 0; r < p.rows(); ++r)
      for (std::int64_t c = 0; c < p.columns(); ++c) {
        const TilePicture::Cell cell = p.cell(r, c);
        const double above = edge(p, cell, r - 1, c), before = edge(p, cell, r, c - 1);
        const Color inside = color(cell);
        for (std::int64_t y = 0; y < scale_; ++y)
          for (std::int64_t x = 0; x < scale_; ++x)
            set(pixels, top + r * scale_ + y, left + c * scale_ + x, inside,
                std::min(y == 0 ? above : 1, x == 0 ? before : 1));
        if (cell.letter != 0) frame(p, pixels, r, c, top, left);
      }
  }

  // How bright the line is between a cell and the one above or before it: dark where a tile ends, faint
  // between places.
  double edge(const TilePicture& p, const TilePicture::Cell& cell, std::int64_t r, std::int64_t c) const {
    if (!p.exact() || scale_ < 4 || cell.outside > 0) return 1;
    if (r >= 0 && c >= 0 && p.cell(r, c).tile == cell.tile) return scale_ < 8 ? 1 : 0.96;
    return cell.visited() > 0 ? 0.8 : 0.88;
  }

  // A line on the sides where the marked cells end.
  void frame(const TilePicture& p, Pixels& pixels, std::int64_t r, std::int64_t c, std::int64_t top,
             std::int64_t left) const {
    const auto marked = [&](std::int64_t row, std::int64_t column) {
      return row >= 0 && row < p.rows() && column >= 0 && column < p.columns() &&
             p.cell(row, column).letter != 0;
    };
    const std::int64_t width = std::clamp<std::int64_t>(scale_ / 6, 1, 3);
    for (std::int64_t y = 0; y < scale_; ++y)
      for (std::int64_t x = 0; x < scale_; ++x)
        if ((y < width && !marked(r - 1, c)) || (y >= scale_ - width && !marked(r + 1, c)) ||
            (x < width && !marked(r, c - 1)) || (x >= scale_ - width && !marked(r, c + 1)))
          set(pixels, top + r * scale_ + y, left + c * scale_ + x, kMarked, 1);
  }

  const std::vector<TilePicture>& pictures_;
  std::int64_t rows_ = 0, columns_ = 0, abreast_ = 1, scale_ = 1;
};

}  // namespace

std::string legend(const std::string& text) {
  constexpr std::pair<const char*, const char*> kMeanings[] = {
      {"Q", "Q: the queries"}, {"K", "K: the keys"},
      {" ", "blank: skipped"}, {"░", "░░ partial, the mask is evaluated"},
      {"█", "██ full"},        {"▓", "▓▓ full and skipped"},
      {"▒", "▒▒ some of each"}};
  std::string line;
  for (const auto& [shade, meaning] : kMeanings)
    if (text.find(shade) != std::string::npos)
      line += fmt::format("{}{}", line.empty() ? "" : "   ", meaning);
  return line + "\n";
}

Pixels pixels(const std::vector<TilePicture>& sheet) {
  return Sheet(sheet).draw();
}

}  // namespace vicinal::cli
