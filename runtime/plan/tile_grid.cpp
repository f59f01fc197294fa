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

// Splits a number whose last digit counts to the last of the radices.
template <class Radix>
void digits(std::int64_t number, std::size_t count, Radix radix, std::int64_t* out) {
  for (std::size_t i = count; i-- > 0;) {
    const std::int64_t r = radix(i);
    out[i] = number % r;
    number /= r;
  }
}

}  // namespace

std::int64_t TileShape::queries() const {
  return product(q);
}
std::int64_t TileShape::keys() const {
  return product(k);
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

TileGrid::TileGrid(const runtime::Problem& problem, TileShape shape)
    : problem_(&problem), shape_(std::move(shape)), neighborhood_(!problem.axes.empty()) {
  const std::size_t rank = problem.q_axis.size();
  VICINAL_ASSERT(shape_.q.size() == rank && shape_.k.size() == rank && rank <= kMaxRank,
                 "a tile shape has the rank of its problem");
  for (std::size_t i = 0; i < rank; ++i) {
    axes_.push_back(neighborhood_ ? neighborhood_axis(problem, i)
                                  : Axis{narrow(problem.q_axis[i].extent), 0, 1, 1, false});
    rows_ *= rows_along(i);
  }
}

std::int64_t TileGrid::rows_along(std::size_t i) const {
  return query_tiles(axes_[i], narrow(problem_->q_axis[i].local), shape_.q[i]);
}

Stretch TileGrid::queries(std::size_t i, std::int64_t number) const {
  const runtime::GridAxis& grid = problem_->q_axis[i];
  return query_stretch(axes_[i], narrow(grid.origin), narrow(grid.local), shape_.q[i], narrow(number));
}

KeySpan TileGrid::keys(std::size_t i, const Stretch& queries) const {
  const runtime::GridAxis& grid = problem_->k_axis[i];
  return neighborhood_ ? key_span(axes_[i], queries, narrow(grid.origin), narrow(grid.local))
                       : all_keys(narrow(grid.origin), narrow(grid.local));
}

void TileGrid::row(std::int64_t number, Row& row) const {
  std::int64_t at[kMaxRank];
  digits(
      number, rank(), [&](std::size_t i) { return rows_along(i); }, at);
  row.queries.resize(rank());
  row.keys.resize(rank());
  row.grid_tiles = 1;
  bool has_query = true;
  for (std::size_t i = 0; i < rank(); ++i) {
    row.queries[i] = queries(i, at[i]);
    has_query = has_query && row.queries[i].count > 0;
    if (!has_query) continue;
    row.keys[i] = keys(i, row.queries[i]);
    row.grid_tiles *= row.keys[i].tiles(shape_.k[i]);
  }
  if (!has_query) row.grid_tiles = 0;
  row.tiles = row.grid_tiles;
  if (has_query) row.tiles += (problem_->context + shape_.keys() - 1) / shape_.keys();
}

void TileGrid::tile(const Row& row, std::int64_t number, std::vector<Stretch>& keys) const {
  if (is_context(row, number)) {
    const std::int64_t first = (number - row.grid_tiles) * shape_.keys();
    keys.assign(1, {narrow(first), narrow(std::min(shape_.keys(), problem_->context - first))});
    return;
  }
  std::int64_t at[kMaxRank];
  digits(
      number, rank(), [&](std::size_t i) { return row.keys[i].tiles(shape_.k[i]); }, at);
  keys.resize(rank());
  for (std::size_t i = 0; i < rank(); ++i) {
    const KeySpan& span = row.keys[i];
    keys[i] = {coordinate_at(axes_[i], span, span.position(shape_.k[i], narrow(at[i]))),
               span.size(shape_.k[i], narrow(at[i]))};
  }
}

bool TileGrid::whole(const Row& row, std::int64_t number) const {
  std::vector<Stretch> keys;
  tile(row, number, keys);
  std::int64_t tokens = 1;
  for (const Stretch& s : keys) tokens *= s.count;
  return tokens == shape_.keys();
}

bool TileGrid::full(const Row& row, std::int64_t number) const {
  if (is_context(row, number)) return whole(row, number);
  std::int64_t at[kMaxRank];
  digits(
      number, rank(), [&](std::size_t i) { return row.keys[i].tiles(shape_.k[i]); }, at);
  for (std::size_t i = 0; i < rank(); ++i)
    if (!row.keys[i].full(shape_.k[i], narrow(at[i]))) return false;
  return true;
}

std::int64_t TileGrid::row_of(std::int64_t token) const {
  std::int64_t at[kMaxRank];
  digits(
      token, rank(), [&](std::size_t i) { return problem_->q_axis[i].local; }, at);
  std::int64_t number = 0;
  for (std::size_t i = 0; i < rank(); ++i) {
    const std::int64_t group = at[i] % axes_[i].dilation, inside = at[i] / axes_[i].dilation;
    const std::int64_t along =
        group * query_tiles_per_group(axes_[i], narrow(problem_->q_axis[i].local), shape_.q[i]) +
        inside / shape_.q[i];
    number = number * rows_along(i) + along;
  }
  return number;
}

}  // namespace vicinal::plan
