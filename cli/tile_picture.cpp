#include "cli/tile_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "compiler/support/check.h"

namespace vicinal::cli {
namespace {

// Tiles [begin, end) of a row, alike.
struct TileRun {
  std::int64_t begin, end;
  bool full;
};

// Of a plan with one axis or none, without a look at every tile.
std::vector<TileRun> runs_of(const plan::TilePlan& plan, std::int64_t slice, std::int64_t number,
                             const plan::Row& row) {
  std::vector<TileRun> runs;
  const auto add = [&](std::int64_t begin, std::int64_t end, bool full) {
    if (begin < end) runs.push_back({begin, end, full});
  };
  const plan::TileGrid& grid = plan.grid();
  if (plan.listed()) {
    const auto at = static_cast<std::size_t>(slice * grid.rows() + number);
    for (std::uint32_t r = plan.row_starts()[at]; r < plan.row_starts()[at + 1]; ++r) {
      const plan::Run& run = plan.runs()[r];
      // A run may go on into the context.
      const std::int64_t cut = std::clamp<std::int64_t>(row.grid_tiles, run.begin, run.end());
      add(run.begin, cut, run.full());
      add(cut, run.end(), run.full());
    }
    return runs;
  }
  const Span& span = row.reach[0];
  const std::int64_t tile = grid.shape().k[0], tiles = row.grid_tiles;
  const std::int64_t sure =
                         std::clamp<std::int64_t>((span.sure_begin - span.begin + tile - 1) / tile, 0, tiles),
                     sure_end = std::clamp<std::int64_t>((span.sure_end - span.begin) / tile, sure, tiles),
                     whole = std::min(row.tiles, tiles + grid.problem().context / grid.shape().keys());
  add(0, sure, false);
  add(sure, sure_end, true);
  add(sure_end, tiles, false);
  add(tiles, whole, true);
  add(whole, row.tiles, false);
  return runs;
}

std::int64_t power_of_two(std::int64_t x) {
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(std::max<std::int64_t>(x, 1))));
}

bool has_query(const plan::Row& row) {
  return std::ranges::all_of(row.tokens, [](const Stretch& s) { return s.count > 0; });
}

}  // namespace

// Tiles mostly have extents that are powers of two: so have cells, and few of them are mixed.
TilePicture::Side::Side(std::int64_t n, std::int64_t most)
    : extent(n), places(power_of_two((n + most - 1) / most)), cells((n + places - 1) / places) {}

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

void TilePicture::mark_queries(const Places& down, const Places& across) {
  each_cell(down, across, [](Cell& cell, double) { cell.queries = true; });
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
      text += cell.queries ? "Q" : shade;
      text += shade;
    }
    text += "│\n";
  }
  return text + "└" + line + "┘\n";
}

namespace {

using Color = std::array<double, 3>;
constexpr Color kSkipped = {255, 255, 255}, kPartial = {245, 158, 66}, kFull = {24, 78, 168},
                kOutside = {225, 225, 225}, kQueries = {20, 20, 20};

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
        if (cell.queries) frame(p, pixels, r, c, top, left);
      }
  }

  // How bright the line is between a cell and the one above or before it: dark where a tile ends, faint
  // between places.
  double edge(const TilePicture& p, const TilePicture::Cell& cell, std::int64_t r, std::int64_t c) const {
    if (!p.exact() || scale_ < 4 || cell.outside > 0) return 1;
    if (r >= 0 && c >= 0 && p.cell(r, c).tile == cell.tile) return scale_ < 8 ? 1 : 0.96;
    return cell.visited() > 0 ? 0.8 : 0.88;
  }

  // A line on the sides where the queries end.
  void frame(const TilePicture& p, Pixels& pixels, std::int64_t r, std::int64_t c, std::int64_t top,
             std::int64_t left) const {
    const auto queries = [&](std::int64_t row, std::int64_t column) {
      return row >= 0 && row < p.rows() && column >= 0 && column < p.columns() && p.cell(row, column).queries;
    };
    const std::int64_t width = std::clamp<std::int64_t>(scale_ / 6, 1, 3);
    for (std::int64_t y = 0; y < scale_; ++y)
      for (std::int64_t x = 0; x < scale_; ++x)
        if ((y < width && !queries(r - 1, c)) || (y >= scale_ - width && !queries(r + 1, c)) ||
            (x < width && !queries(r, c - 1)) || (x >= scale_ - width && !queries(r, c + 1)))
          set(pixels, top + r * scale_ + y, left + c * scale_ + x, kQueries, 1);
  }

  const std::vector<TilePicture>& pictures_;
  std::int64_t rows_ = 0, columns_ = 0, abreast_ = 1, scale_ = 1;
};

// Draws all rows of a plan with one axis or none.
class WholePlan {
 public:
  WholePlan(const plan::TilePlan& plan, std::int64_t slice, std::int64_t most)
      : plan_(plan),
        grid_(plan.grid()),
        slice_(slice),
        sequence_(grid_.problem().axes.empty()),
        keys_(columns_for(grid_.problem().local_keys())),
        context_(columns_for(grid_.problem().context)),
        context_first_(keys_ + gap(most)),
        picture_(sequence_ ? grid_.rows() : grid_.problem().local_queries(), context_first_ + context_,
                 most) {}

  TilePicture draw() {
    std::int64_t at = 0;
    for (std::int64_t n = 0; n < grid_.rows(); ++n) {
      grid_.row(n, row_);
      if (!has_query(row_)) continue;
      const Places down{at, sequence_ ? 1 : row_.tokens[0].count};
      at += down.count;
      if (sequence_ && picture_.exact())
        for (std::int64_t t = 0; t < row_.tiles; ++t) picture_.outline(down, places(t, t + 1), id(n, t));
      for (const TileRun& run : runs_of(plan_, slice_, n, row_)) draw(n, down, run);
      picture_.paint(down, {keys_, context_first_ - keys_}, TileMark::outside, 0);
    }
    return std::move(picture_);
  }

 private:
  std::int64_t columns_for(std::int64_t keys) const {
    const std::int64_t tile = sequence_ ? grid_.shape().k[0] : 1;
    return (keys + tile - 1) / tile;
  }
  // Wide enough to hold a cell.
  std::int64_t gap(std::int64_t most) const {
    if (context_ == 0) return 0;
    const std::int64_t cell = 2 * power_of_two((keys_ + context_ + most - 1) / most);
    return cell + (cell - keys_ % cell) % cell;
  }
  std::int64_t id(std::int64_t number, std::int64_t t) const { return 1 + number * row_.tiles + t; }

  void draw(std::int64_t number, const Places& down, const TileRun& run) {
    const TileMark mark = run.full ? TileMark::full : TileMark::partial;
    if (picture_.exact())
      for (std::int64_t t = run.begin; t < run.end; ++t)
        picture_.paint(down, places(t, t + 1), mark, id(number, t));
    else
      picture_.paint(down, places(run.begin, run.end), mark, 0);
  }

  // Of tiles that are all of the grid or all of the context.
  Places places(std::int64_t begin, std::int64_t end) {
    const bool context = grid_.is_context(row_, begin);
    if (sequence_) return {context ? context_first_ + begin - row_.grid_tiles : begin, end - begin};
    const std::int64_t step = context ? 1 : grid_.axis(0).dilation;
    grid_.tile(row_, begin, tile_);
    const std::int64_t first = tile_[0].first;
    grid_.tile(row_, end - 1, tile_);
    const std::int64_t count = (tile_[0].first - first) / step + tile_[0].count;
    return {context ? context_first_ + first : first - grid_.problem().k_axis[0].origin, count, step};
  }

  const plan::TilePlan& plan_;
  const plan::TileGrid& grid_;
  std::int64_t slice_;
  bool sequence_;
  std::int64_t keys_, context_, context_first_;  // columns
  TilePicture picture_;
  plan::Row row_;
  std::vector<Stretch> tile_;
};

}  // namespace

std::string legend(const std::string& text) {
  constexpr std::pair<const char*, const char*> kMeanings[] = {
      {"Q", "Q: the queries"}, {" ", "blank: skipped"},      {"░", "░░ partial, the mask is evaluated"},
      {"█", "██ full"},        {"▓", "▓▓ full and skipped"}, {"▒", "▒▒ some of each"}};
  std::string line;
  for (const auto& [shade, meaning] : kMeanings)
    if (text.find(shade) != std::string::npos)
      line += fmt::format("{}{}", line.empty() ? "" : "   ", meaning);
  return line + "\n";
}

Pixels pixels(const std::vector<TilePicture>& sheet) {
  return Sheet(sheet).draw();
}

TilePicture picture_of(const plan::TilePlan& plan, std::int64_t slice, std::int64_t most) {
  return WholePlan(plan, slice, most).draw();
}

RowPicture::RowPicture(const plan::TilePlan& plan, std::int64_t slice, std::int64_t number)
    : grid_(plan.grid()) {
  grid_.row(number, row_);
  visits_.assign(static_cast<std::size_t>(row_.tiles), Visit::skipped);
  plan.each_tile(slice, number, row_, [&](std::int64_t t, bool full) {
    visits_[static_cast<std::size_t>(t)] = full ? Visit::full : Visit::partial;
    ++(full ? full_ : partial_);
  });
  for (std::size_t i = 0; i < grid_.rank(); ++i) {
    const auto end = [&](const Stretch& s) {
      return s.first + (s.count - 1) * std::int64_t{grid_.axis(i).dilation} + 1;
    };
    Interval reach = {row_.tokens[i].first, end(row_.tokens[i])};
    if (row_.grid_tiles > 0) {
      const Span& span = row_.reach[i];
      const Stretch keys{coordinate_at(grid_.axis(i), span, span.begin), span.end - span.begin};
      reach = {std::min<std::int64_t>(reach.low, keys.first), std::max(reach.high, end(keys))};
    }
    reach_.push_back(reach);
  }
}

bool RowPicture::holds(std::size_t axis, const Stretch& tokens, std::int64_t coordinate) const {
  const std::int64_t off = coordinate - tokens.first, step = grid_.axis(axis).dilation;
  return off >= 0 && off % step == 0 && off / step < tokens.count;
}

Places RowPicture::places(std::size_t axis, const Stretch& tokens, const Interval& frame) const {
  return {tokens.first - frame.low, tokens.count, grid_.axis(axis).dilation};
}

void RowPicture::paint(TilePicture& picture, std::int64_t tile, const Places& down,
                       const Places& across) const {
  switch (visits_[static_cast<std::size_t>(tile)]) {
    case Visit::skipped: picture.outline(down, across, tile + 1); break;
    case Visit::partial: picture.paint(down, across, TileMark::partial, tile + 1); break;
    case Visit::full: picture.paint(down, across, TileMark::full, tile + 1); break;
  }
}

TilePicture RowPicture::context(std::int64_t line, std::int64_t most) const {
  const std::int64_t keys = grid_.problem().context;
  TilePicture picture((keys + line - 1) / line, std::min(keys, line), most);
  std::vector<Stretch> box;
  for (std::int64_t t = row_.grid_tiles; t < row_.tiles; ++t) {
    grid_.tile(row_, t, box);
    for (std::int64_t at = box[0].first, end = at + box[0].count; at < end;) {
      const std::int64_t next = std::min(end, (at / line + 1) * line);
      paint(picture, t, {at / line, 1}, {at % line, next - at});
      at = next;
    }
  }
  if (keys > line && keys % line != 0)
    picture.paint({keys / line, 1}, {keys % line, line - keys % line}, TileMark::outside, 0);
  return picture;
}

TilePicture RowPicture::plane(const std::vector<std::int64_t>& at, Interval down, Interval across,
                              std::int64_t most) const {
  TilePicture picture(down.high - down.low, across.high - across.low, most);
  const std::size_t y = grid_.rank() - 2, x = grid_.rank() - 1;
  const auto crosses = [&](const std::vector<Stretch>& box) {
    for (std::size_t i = 0; i < at.size(); ++i)
      if (!holds(i, box[i], at[i])) return false;
    return true;
  };
  std::vector<Stretch> box;
  for (std::int64_t t = 0; t < row_.grid_tiles; ++t) {
    grid_.tile(row_, t, box);
    if (!crosses(box)) continue;
    paint(picture, t, places(y, box[y], down), places(x, box[x], across));
  }
  if (crosses(row_.tokens))
    picture.mark_queries(places(y, row_.tokens[y], down), places(x, row_.tokens[x], across));
  return picture;
}

}  // namespace vicinal::cli
