#include "cli/tiles/pictures.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "cli/tiles/plan_picture.h"

namespace vicinal::cli {
namespace {

class Pictures {
 public:
  explicit Pictures(const ExplainedTiles& e) : e_(e), grid_(e.grid()) {
    if (e.draws_row()) row_.emplace(e.plan, e.slice(), e.row);
  }

  void print() const {
    if (e_.empty()) return;
    fmt::print("batch {}, head {}", e_.batch, e_.head);
    if (row_)
      print_row();
    else
      print_all(picture_of(e_.plan, e_.slice(), kTerminal));
  }

  std::vector<TilePicture> sheet() const {
    if (row_) return sheet_of_row();
    std::vector<TilePicture> sheet;
    if (!e_.empty()) sheet.push_back(picture_of(e_.plan, e_.slice(), kPng));
    return sheet;
  }

 private:
  void print_all(const TilePicture& picture) const {
    const bool sequence = e_.module.axes.empty();
    std::string cells;
    if (!picture.exact())
      cells =
          fmt::format(", {} x {} {} a cell", picture.down(), picture.across(), sequence ? "tiles" : "tokens");
    const std::string text = terminal_text(picture);
    const char *const down = plan::name_of(grid_.owner()), *const across = plan::name_of(grid_.visited());
    const std::string sides = sequence ? fmt::format("tiles of {} down, tiles of {} across", down, across)
                                       : fmt::format("{} down, tile by tile; {} across", down, across);
    fmt::print(": {}{}\n{}{}", sides, cells, text, legend(text));
  }

  void print_row() const {
    std::string own;
    for (std::size_t i = 0; i < grid_.rank(); ++i)
      own += (i == 0 ? "" : ", ") + tokens(i, row_->row().tokens[i]);
    const char* const which = !e_.row_given     ? "the middle one"
                              : e_.transposed() ? "which holds that key"
                                                : "which holds that query";
    fmt::print(", tile of {} {}, {}: {}\n", plan::name_of(grid_.owner()), e_.row, which, own);
    print_planes();
  }

  // "y 4 to 7", "y 4 to 10 by 2"
  std::string tokens(std::size_t axis, const Stretch& s) const {
    const int step = grid_.axis(axis).dilation;
    std::string text = fmt::format("{} {}", e_.module.axes[axis].name, s.first);
    if (s.count > 1) text += fmt::format(" to {}", s.first + (s.count - 1) * step);
    if (s.count > 1 && step > 1) text += fmt::format(" by {}", step);
    return text;
  }

  // The whole axis, or what the row reaches of it and a margin.
  Interval frame(std::size_t axis, std::int64_t most, std::int64_t margin) const {
    const std::int64_t extent = grid_.problem().k_axis[axis].local;
    if (extent <= most) return {0, extent};
    const Interval& reach = row_->reach()[axis];
    return {std::max<std::int64_t>(0, reach.low - margin), std::min(extent, reach.high + margin)};
  }

  // Coordinates of the axes before the last two, in order; every so many of them where they are too many.
  using Coordinates = std::vector<std::int64_t>;
  static std::vector<Coordinates> leading(const std::vector<Interval>& box, std::size_t most) {
    std::int64_t count = 1;
    for (const Interval& i : box) count *= i.high - i.low;
    const std::int64_t step = (count + static_cast<std::int64_t>(most) - 1) / static_cast<std::int64_t>(most);
    std::vector<Coordinates> result;
    for (std::int64_t n = 0; n < count; n += step) {
      Coordinates at(box.size());
      std::int64_t rest = n;
      for (std::size_t i = box.size(); i-- > 0; rest /= box[i].high - box[i].low)
        at[i] = box[i].low + rest % (box[i].high - box[i].low);
      result.push_back(std::move(at));
    }
    return result;
  }

  // "t 4 to 7, 9", "u, t 0 3 to 0 5"
  std::string caption(const std::vector<Coordinates>& all, const std::vector<std::size_t>& places) const {
    std::string text;
    for (std::size_t i = 0; i < all[0].size(); ++i) text += (i == 0 ? "" : ", ") + e_.module.axes[i].name;
    for (std::size_t i = 0; i < places.size();) {
      const std::size_t first = places[i];
      while (++i < places.size() && places[i] == places[i - 1] + 1) continue;
      text += fmt::format("{} {}", first == places[0] ? "" : ",", fmt::join(all[first], " "));
      if (places[i - 1] != first) text += fmt::format(" to {}", fmt::join(all[places[i - 1]], " "));
    }
    return text;
  }

  void print_planes() const {
    const std::size_t y = grid_.rank() - 2, x = grid_.rank() - 1;
    const std::int64_t most = y == 0 ? kTerminal : kTerminal / 2;  // several planes are long enough
    const Interval down = frame(y, most, 1), across = frame(x, most, 1);
    const std::vector<Interval> before(row_->reach().begin(), row_->reach().end() - 2);
    const std::vector<Coordinates> all = leading(before, kMaxPlanes);
    fmt::print("{}: {} {} to {} down, {} {} to {} across\n", plan::name_of(grid_.visited()),
               e_.module.axes[y].name, down.low, down.high - 1, e_.module.axes[x].name, across.low,
               across.high - 1);
    std::vector<std::pair<std::string, std::vector<std::size_t>>> planes;  // text, and which look like it
    for (std::size_t i = 0; i < all.size(); ++i) {
      const TilePicture picture = row_->plane(all[i], down, across, kTerminal);
      if (picture.blank()) continue;
      std::string text = terminal_text(picture);
      auto same = std::ranges::find(planes, text, [](const auto& plane) { return plane.first; });
      if (same == planes.end()) same = planes.insert(same, {std::move(text), {}});
      same->second.push_back(i);
    }
    std::string shown;
    for (const auto& [text, places] : planes)
      shown += fmt::format("{}{}", before.empty() ? "" : caption(all, places) + "\n", text);
    if (visits_context())
      shown += fmt::format("context\n{}", terminal_text(row_->context(grid_.problem().context, kTerminal)));
    fmt::print("{}{}", shown, legend(shown));
  }

  bool visits_context() const { return row_->row().tiles > row_->row().grid_tiles; }

  std::vector<TilePicture> sheet_of_row() const {
    const auto margin = [&](std::size_t axis) {
      return (row_->reach()[axis].high - row_->reach()[axis].low) / 2;
    };
    const std::size_t y = grid_.rank() - 2, x = grid_.rank() - 1;
    const Interval down = frame(y, 128, margin(y)), across = frame(x, 128, margin(x));
    std::vector<Interval> before;
    for (std::size_t i = 0; i < y; ++i) before.push_back(frame(i, kMaxPlanes, 0));
    std::vector<TilePicture> sheet;
    for (const Coordinates& at : leading(before, kMaxPlanes))
      sheet.push_back(row_->plane(at, down, across, kPng));
    if (visits_context()) sheet.push_back(row_->context(across.high - across.low, kPng));
    return sheet;
  }

  static constexpr std::int64_t kTerminal = 48, kPng = 1024;  // cells a side
  static constexpr std::size_t kMaxPlanes = 64;

  const ExplainedTiles& e_;
  const plan::TileGrid& grid_;
  std::optional<RowPicture> row_;
};

}  // namespace

void print_tile_pictures(const ExplainedTiles& explained) {
  Pictures(explained).print();
}

std::vector<TilePicture> tile_picture_sheet(const ExplainedTiles& explained) {
  return Pictures(explained).sheet();
}

}  // namespace vicinal::cli
