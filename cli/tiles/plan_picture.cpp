#include "cli/tiles/plan_picture.h"

#include <algorithm>

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
  if (number >= grid.grid_rows()) {
    // Keys of the context, which visit tiles of queries group by group.
    const bool one_group = grid.axis(0).dilation == 1;
    plan.each_tile(slice, number, row, [&](std::int64_t t, bool full) {
      if (one_group && !runs.empty() && runs.back().end == t && runs.back().full == full)
        runs.back().end = t + 1;
      else
        add(t, t + 1, full);
    });
    return runs;
  }
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
  const std::int64_t tile = grid.shape().of(grid.visited())[0], tiles = row.grid_tiles;
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

bool has_tokens(const plan::Row& row) {
  return std::ranges::all_of(row.tokens, [](const Stretch& s) { return s.count > 0; });
}

// One side of such a picture: places of the grid, and behind a gap those of the context.
struct Band {
  std::int64_t grid, gap, context;

  std::int64_t context_first() const { return grid + gap; }
  std::int64_t size() const { return grid + gap + context; }
};

// Draws all rows of a plan with one axis or none.
class WholePlan {
 public:
  WholePlan(const plan::TilePlan& plan, std::int64_t slice, std::int64_t most)
      : plan_(plan),
        grid_(plan.grid()),
        slice_(slice),
        sequence_(grid_.problem().axes.empty()),
        down_(band(grid_.owner(), most)),
        across_(band(grid_.visited(), most)),
        picture_(down_.size(), across_.size(), most) {}

  TilePicture draw() {
    std::int64_t at = 0;
    for (std::int64_t n = 0; n < grid_.rows(); ++n) {
      grid_.row(n, row_);
      if (!has_tokens(row_)) continue;
      if (n == grid_.grid_rows()) at = down_.context_first();
      const Places down{at, sequence_ ? 1 : row_.tokens[0].count};
      at += down.count;
      if (sequence_ && picture_.exact())
        for (std::int64_t t = 0; t < row_.tiles; ++t) picture_.outline(down, places(t, t + 1), id(n, t));
      for (const TileRun& run : runs_of(plan_, slice_, n, row_)) draw(n, down, run);
    }
    picture_.paint({0, down_.size()}, {across_.grid, across_.gap}, TileMark::outside, 0);
    picture_.paint({down_.grid, down_.gap}, {0, across_.size()}, TileMark::outside, 0);
    return std::move(picture_);
  }

 private:
  const runtime::GridAxis& axis(plan::Side side) const {
    return (side == plan::Side::queries ? grid_.problem().q_axis : grid_.problem().k_axis)[0];
  }

  Band band(plan::Side side, std::int64_t most) const {
    const std::int64_t tile = sequence_ ? grid_.shape().of(side)[0] : 1;
    const auto places = [&](std::int64_t tokens) { return (tokens + tile - 1) / tile; };
    Band band = {places(axis(side).local), 0, side == plan::Side::keys ? places(grid_.problem().context) : 0};
    if (band.context > 0) {
      // Wide enough to hold a cell.
      const std::int64_t cell = 2 * places_to_a_cell(band.size(), most);
      band.gap = cell + (cell - band.grid % cell) % cell;
    }
    return band;
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

  // Of tiles of one group, or of the context.
  Places places(std::int64_t begin, std::int64_t end) {
    const bool context = grid_.owner() == plan::Side::queries && grid_.is_context(row_, begin);
    if (sequence_) return {context ? across_.context_first() + begin - row_.grid_tiles : begin, end - begin};
    const std::int64_t step = context ? 1 : grid_.axis(0).dilation;
    grid_.tile(row_, begin, tile_);
    const std::int64_t first = tile_[0].first;
    grid_.tile(row_, end - 1, tile_);
    const std::int64_t count = (tile_[0].first - first) / step + tile_[0].count;
    return {context ? across_.context_first() + first : first - axis(grid_.visited()).origin, count, step};
  }

  const plan::TilePlan& plan_;
  const plan::TileGrid& grid_;
  std::int64_t slice_;
  bool sequence_;
  Band down_, across_;
  TilePicture picture_;
  plan::Row row_;
  std::vector<Stretch> tile_;
};

}  // namespace

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
    picture.mark(places(y, row_.tokens[y], down), places(x, row_.tokens[x], across),
                 grid_.owner() == plan::Side::queries ? 'Q' : 'K');
  return picture;
}

}  // namespace vicinal::cli
