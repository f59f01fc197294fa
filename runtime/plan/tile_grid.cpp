#include "runtime/plan/tile_grid.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <functional>
#include <numeric>

#include "compiler/support/check.h"

namespace vicinal::plan {
namespace {

std::int64_t product(const std::vector<int>& x) {
  return std::accumulate(x.begin(), x.end(), std::int64_t{1}, std::multiplies<>());
}

int narrow(std::int64_t x) {
  return static_cast<int>(x);
}

// "8x8" to its numbers; empty where it is not that.
std::vector<int> numbers(std::string_view text) {
  std::vector<int> result;
  for (const char* at = text.data(); const char* const end = text.data() + text.size();) {
    int value = 0;
    const auto [rest, error] = std::from_chars(at, end, value);
    if (error != std::errc() || value < 1 || value > 65536) return {};
    result.push_back(value);
    if (rest == end) return result;
    if (*rest != 'x') return {};
    at = rest + 1;
  }
  return {};
}

// Splits a number whose last digit counts to the last of the radices, and whose first is what is left.
template <class Radix>
void digits(std::int64_t number, std::size_t count, Radix radix, std::int64_t* out) {
  for (std::size_t i = count; i-- > 1;) {
    const std::int64_t r = radix(i);
    out[i] = number % r;
    number /= r;
  }
  out[0] = number;
}

}  // namespace

std::int64_t TileShape::tokens(Side side) const {
  return product(of(side));
}

std::string print(const TileShape& shape) {
  return fmt::format("{}/{}", fmt::join(shape.q, "x"), fmt::join(shape.k, "x"));
}

Result<TileShape> parse_tile_shape(const std::string& text, std::size_t rank) {
  TileShape shape;
  const std::size_t cut = text.find_first_of("/,");
  if (cut != std::string::npos) {
    shape.q = numbers(std::string_view(text).substr(0, cut));
    shape.k = numbers(std::string_view(text).substr(cut + 1));
  }
  if (shape.q.size() == rank && shape.k.size() == rank) return shape;
  const std::string example = fmt::format("{}", fmt::join(std::vector<int>(rank, 8), "x"));
  return unexpected(ErrorKind::usage,
                    fmt::format("`{}` is no tile shape of {} {}", text, rank, rank == 1 ? "axis" : "axes"),
                    fmt::format("write the queries' extents and the keys', as in `{0}/{0}`", example));
}

Axis neighborhood_axis(const runtime::Problem& problem, std::size_t i) {
  const runtime::Problem::AxisShape& a = problem.axes[i];
  return {narrow(problem.q_axis[i].extent), narrow(a.window), narrow(a.dilation), narrow(a.stride), a.causal};
}

TileGrid::TileGrid(const runtime::Problem& problem, TileShape shape, Side owner)
    : problem_(&problem), shape_(std::move(shape)), owner_(owner), neighborhood_(!problem.axes.empty()) {
  const std::size_t rank = problem.q_axis.size();
  VICINAL_ASSERT(shape_.q.size() == rank && shape_.k.size() == rank && rank <= kMaxRank,
                 "a tile shape has the rank of its problem");
  for (std::size_t i = 0; i < rank; ++i)
    axes_.push_back(neighborhood_ ? neighborhood_axis(problem, i)
                                  : Axis{narrow(problem.q_axis[i].extent), 0, 1, 1, false});
  grid_rows_ = rows_of(owner);
  context_tiles_ = (problem.context + shape_.keys() - 1) / shape_.keys();
}

const std::vector<runtime::GridAxis>& TileGrid::axes_of(Side side) const {
  return side == Side::queries ? problem_->q_axis : problem_->k_axis;
}

std::int64_t TileGrid::rows_along(Side side, std::size_t i) const {
  return vicinal::rows_along(axes_[i], narrow(axes_of(side)[i].local), shape_.of(side)[i]);
}

std::int64_t TileGrid::rows_of(Side side) const {
  std::int64_t rows = 1;
  for (std::size_t i = 0; i < rank(); ++i) rows *= rows_along(side, i);
  return rows;
}

Stretch TileGrid::tokens(Side side, std::size_t i, std::int64_t number) const {
  const runtime::GridAxis& grid = axes_of(side)[i];
  return row_stretch(axes_[i], narrow(grid.origin), narrow(grid.local), shape_.of(side)[i], narrow(number));
}

// False: the row has no token.
bool TileGrid::row_tokens(Side side, std::int64_t number, std::vector<Stretch>& out) const {
  std::int64_t at[kMaxRank];
  digits(
      number, rank(), [&](std::size_t i) { return rows_along(side, i); }, at);
  out.resize(rank());
  bool any = true;
  for (std::size_t i = 0; i < rank(); ++i) {
    out[i] = tokens(side, i, at[i]);
    any = any && out[i].count > 0;
  }
  return any;
}

Stretch TileGrid::context_tile(std::int64_t number) const {
  const std::int64_t first = number * shape_.keys();
  return {narrow(first), narrow(std::min(shape_.keys(), problem_->context - first))};
}

Span TileGrid::reach(std::size_t i, const Stretch& tokens) const {
  const int origin = narrow(axes_of(visited())[i].origin), local = narrow(axes_of(visited())[i].local);
  if (!neighborhood_) return whole_span(origin, local);
  return owner_ == Side::queries ? key_span(axes_[i], tokens, origin, local)
                                 : query_span(axes_[i], tokens, origin, local);
}

void TileGrid::row(std::int64_t number, Row& row) const {
  row.grid_tiles = row.tiles = 0;
  if (number >= grid_rows_) {
    row.tokens.assign(1, context_tile(number - grid_rows_));
    row.tiles = rows_of(Side::queries);
    return;
  }
  if (!row_tokens(owner_, number, row.tokens)) return;
  row.reach.resize(rank());
  row.grid_tiles = 1;
  for (std::size_t i = 0; i < rank(); ++i) {
    row.reach[i] = reach(i, row.tokens[i]);
    row.grid_tiles *= row.reach[i].tiles(shape_.of(visited())[i]);
  }
  row.tiles = row.grid_tiles + (owner_ == Side::queries ? context_tiles_ : 0);
}

// The place of one of the grid's tiles along each axis.
void TileGrid::split(const Row& row, std::int64_t tile, std::int64_t* at) const {
  digits(
      tile, rank(), [&](std::size_t i) { return row.reach[i].tiles(shape_.of(visited())[i]); }, at);
}

void TileGrid::tile(const Row& row, std::int64_t number, std::vector<Stretch>& out) const {
  if (is_context(row, number)) {
    if (owner_ == Side::keys)
      row_tokens(Side::queries, number, out);
    else
      out.assign(1, context_tile(number - row.grid_tiles));
    return;
  }
  std::int64_t at[kMaxRank];
  split(row, number, at);
  out.resize(rank());
  for (std::size_t i = 0; i < rank(); ++i) {
    const Span& reach = row.reach[i];
    const int tile = shape_.of(visited())[i];
    out[i] = {coordinate_at(axes_[i], reach, reach.position(tile, narrow(at[i]))),
              reach.size(tile, narrow(at[i]))};
  }
}

bool TileGrid::has_tokens(const Row& row, std::int64_t number) const {
  std::vector<Stretch> box;
  return owner_ == Side::queries || !is_context(row, number) || row_tokens(Side::queries, number, box);
}

bool TileGrid::whole(const Row& row, std::int64_t number) const {
  std::int64_t at[kMaxRank], tokens = 1;
  if (is_context(row, number)) {
    if (owner_ == Side::queries)
      return context_tile(number - row.grid_tiles).count == shape_.tokens(visited());
    std::vector<Stretch> box;
    tile(row, number, box);
    for (const Stretch& s : box) tokens *= s.count;
    return tokens == shape_.tokens(visited());
  }
  split(row, number, at);
  for (std::size_t i = 0; i < rank(); ++i) {
    const int extent = shape_.of(visited())[i];
    if (row.reach[i].size(extent, narrow(at[i])) != extent) return false;
  }
  return true;
}

bool TileGrid::full(const Row& row, std::int64_t number) const {
  if (is_context(row, number)) return whole(row, number);
  std::int64_t at[kMaxRank];
  split(row, number, at);
  for (std::size_t i = 0; i < rank(); ++i)
    if (!row.reach[i].full(shape_.of(visited())[i], narrow(at[i]))) return false;
  return true;
}

std::int64_t TileGrid::row_of(std::int64_t token) const {
  const std::vector<runtime::GridAxis>& axes = axes_of(owner_);
  std::int64_t at[kMaxRank];
  digits(
      token, rank(), [&](std::size_t i) { return axes[i].local; }, at);
  std::int64_t number = 0;
  for (std::size_t i = 0; i < rank(); ++i) {
    const int tile = shape_.of(owner_)[i];
    const std::int64_t group = at[i] % axes_[i].dilation, inside = at[i] / axes_[i].dilation;
    const std::int64_t along = group * rows_per_group(axes_[i], narrow(axes[i].local), tile) + inside / tile;
    number = number * rows_along(owner_, i) + along;
  }
  return number;
}

}  // namespace vicinal::plan
