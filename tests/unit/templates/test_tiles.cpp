// tiles.cuh on the host: what a row visits, forward and transposed, against the pairs that geometry.cuh
// keeps.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "vicinal/tiles.cuh"

namespace vicinal {
namespace {

struct Example {
  Axis axis;
  std::vector<QueryRange> ranges;  // of the keys 0, 1, ...
};

// extent, window, dilation, stride, causal
const Example kWorked[] = {
    {{8, 3, 1, 1, false}, {{0, 2}, {0, 3}, {0, 4}, {2, 5}, {3, 6}, {4, 8}, {5, 8}, {6, 8}}},
    {{8, 3, 1, 1, true}, {{0, 3}, {1, 4}, {2, 5}, {3, 6}, {4, 7}, {5, 8}, {6, 8}, {7, 8}}},
    {{8, 5, 1, 3, false}, {{0, 3}, {0, 3}, {0, 6}, {0, 8}, {0, 8}, {3, 8}, {3, 8}, {6, 8}}},
    {{8, 5, 1, 3, true}, {{0, 3}, {1, 6}, {2, 6}, {3, 8}, {4, 8}, {5, 8}, {6, 8}, {7, 8}}},
    {{10, 4, 1, 4, false},
     {{0, 4}, {0, 4}, {0, 4}, {0, 4}, {4, 8}, {4, 8}, {4, 10}, {4, 10}, {8, 10}, {8, 10}}},
    {{4, 0, 1, 1, true}, {{0, 4}, {1, 4}, {2, 4}, {3, 4}}},
    {{5, 0, 2, 1, false}, {{0, 3}, {0, 2}, {0, 3}, {0, 2}, {0, 3}}},
};

std::string name_of(const Axis& a) {
  return fmt::format("extent {} window {} dilation {} stride {}{}", a.extent, a.window, a.dilation, a.stride,
                     a.causal ? " causal" : "");
}

// visit(axis) for every axis up to so many tokens.
template <class Visit>
void each_axis(int most, Visit visit) {
  for (int extent = 1; extent <= most; ++extent)
    for (int dilation = 1; dilation <= extent; ++dilation)
      for (int window = 0; window * dilation <= extent; ++window)
        for (int stride = 1; stride <= std::max(window, 1); ++stride)
          for (const bool causal : {false, true}) visit(Axis{extent, window, dilation, stride, causal});
}

// pair[x][y]: whether query x sees key y.
using Pairs = std::vector<std::vector<bool>>;

Pairs pairs_of(const Axis& axis) {
  Pairs pairs;
  for (int x = 0; x < axis.extent; ++x) {
    std::vector<bool> keys;
    for (int y = 0; y < axis.extent; ++y) keys.push_back(contains(axis, neighborhood(axis, x), x, y));
    pairs.push_back(std::move(keys));
  }
  return pairs;
}

struct Shard {
  int origin, local;
};

// Whether the reach of a row is what the pairs say, and no longer than it must be.
bool reach_is_right(const Axis& axis, const Pairs& pairs, bool transposed, const Stretch& row,
                    const Shard& visited) {
  const Span span = transposed ? query_span(axis, row, visited.origin, visited.local)
                               : key_span(axis, row, visited.origin, visited.local);
  int some_first = axis.extent, some_last = -1;
  for (int at = visited.origin; at < visited.origin + visited.local; ++at) {
    int seen = 0;
    for (int i = 0; i < row.count; ++i) {
      const auto own = static_cast<std::size_t>(row.first + i * axis.dilation),
                 other = static_cast<std::size_t>(at);
      seen += transposed ? pairs[other][own] : pairs[own][other];
    }
    if (seen > 0) {
      some_first = std::min(some_first, at);
      some_last = at;
    }
    const int position = at / axis.dilation;
    const bool of_group = at % axis.dilation == span.residue;
    const bool some = of_group && position >= span.begin && position < span.end;
    const bool sure = of_group && position >= span.sure_begin && position < span.sure_end;
    if (some != (seen > 0) || sure != (seen == row.count)) return false;
  }
  if (some_last < 0) return span.begin == span.end;
  return coordinate_at(axis, span, span.begin) == some_first &&
         coordinate_at(axis, span, span.end - 1) == some_last;
}

// Against all pairs that are kept, by their ends: what is between is kept too, as the ends do not step back.
void check_queries_seeing(const Axis& axis) {
  std::vector<QueryRange> seen(static_cast<std::size_t>(axis.extent), {axis.extent, 0});
  for (int x = 0; x < axis.extent; ++x) {
    const KeyRange keys = neighborhood(axis, x);
    for (int r = keys.begin; r < keys.end; ++r) {
      QueryRange& queries = seen[static_cast<std::size_t>(r * axis.dilation + x % axis.dilation)];
      queries.begin = std::min(queries.begin, x / axis.dilation);
      queries.end = x / axis.dilation + 1;
    }
  }
  for (int y = 0; y < axis.extent; ++y) {
    const QueryRange got = queries_seeing(axis, y), wanted = seen[static_cast<std::size_t>(y)];
    if (got.begin == wanted.begin && got.end == wanted.end) continue;
    FAIL_CHECK("key ", y, " of ", name_of(axis));
  }
}

}  // namespace

TEST_CASE("tiles: the queries that see a key, worked examples") {
  for (const Example& example : kWorked) {
    INFO(name_of(example.axis));
    for (int y = 0; y < example.axis.extent; ++y) {
      INFO("key ", y);
      const QueryRange range = queries_seeing(example.axis, y),
                       wanted = example.ranges[static_cast<std::size_t>(y)];
      CHECK(range.begin == wanted.begin);
      CHECK(range.end == wanted.end);
    }
  }
}

TEST_CASE("tiles: a row's reach on every axis up to 12 tokens, every stretch, every shard") {
  std::int64_t rows = 0;
  each_axis(12, [&](const Axis& axis) {
    const Pairs pairs = pairs_of(axis);
    for (int first = 0; first < axis.extent; ++first)
      for (int count = 1; first + (count - 1) * axis.dilation < axis.extent; ++count)
        for (int origin = 0; origin < axis.extent; origin += 3)
          for (int local = 0; local <= axis.extent - origin; ++local)
            for (const bool transposed : {false, true}) {
              ++rows;
              if (reach_is_right(axis, pairs, transposed, {first, count}, {origin, local})) continue;
              FAIL_CHECK((transposed ? "transposed, " : ""), count, " tokens from ", first, ", at hand ",
                         local, " from ", origin, ", ", name_of(axis));
            }
  });
  CHECK(rows > 1000000);
}

TEST_CASE("tiles: the queries that see a key on every axis up to 40 tokens") {
  each_axis(40, check_queries_seeing);
}

// Axes on which neighborhood attention's kernels are known to go wrong, if anywhere.
TEST_CASE("tiles: the queries that see a key on long and on ragged axes") {
  constexpr int kAxes[][4] = {
      // extent, window, stride, dilation
      {128, 63, 31, 1},   {256, 255, 82, 1}, {128, 8, 7, 5},        {125, 15, 1, 1},    {17, 12, 1, 1},
      {256, 136, 136, 1}, {32768, 63, 1, 8}, {32768, 2048, 256, 1}, {2048, 2048, 1, 1}, {5, 5, 1, 1},
      {25, 16, 16, 1},    {19, 8, 1, 2},     {29, 8, 1, 3},         {67, 12, 8, 5},     {80, 7, 4, 11},
      {33, 24, 1, 1},     {33, 16, 1, 1},    {28, 17, 1, 1},        {40, 31, 1, 1},     {44, 44, 4, 1},
      {80, 80, 8, 1},     {84, 7, 1, 5},     {69, 20, 6, 1},        {44, 24, 8, 1},     {80, 16, 16, 1},
      {32, 7, 5, 1},      {10, 3, 1, 2},     {10, 3, 1, 3},         {13, 3, 2, 3},      {11, 4, 3, 2},
      {9, 3, 3, 2},       {57, 20, 1, 2},    {88, 6, 1, 1},         {30, 18, 16, 1},    {48, 24, 8, 1},
      {16, 12, 8, 1},     {44, 32, 22, 1},   {80, 32, 16, 1},       {8, 7, 1, 1},       {5, 2, 1, 2},
      {45, 7, 4, 2},      {73, 32, 32, 2},   {61, 10, 1, 2},        {1, 1, 1, 1}};
  for (const auto& [extent, window, stride, dilation] : kAxes)
    for (const bool causal : {false, true}) check_queries_seeing({extent, window, dilation, stride, causal});
}

TEST_CASE("tiles: no extent is too long for the arithmetic") {
  constexpr int kLong = 0x7fffffff;
  for (const int window : {1, 1 << 30, kLong})
    for (const int stride : {1, window})
      for (const bool causal : {false, true}) {
        const Axis axis{kLong, window, 1, stride, causal};
        for (const int y : {0, 1, 1 << 30, kLong - 2, kLong - 1}) {
          const QueryRange queries = queries_seeing(axis, y);
          REQUIRE(queries.begin < queries.end);
          const auto sees = [&](int x) { return contains(axis, neighborhood(axis, x), x, y); };
          CHECK(sees(queries.begin));
          CHECK(sees(queries.end - 1));
          if (queries.begin > 0) CHECK(!sees(queries.begin - 1));
          if (queries.end < kLong) CHECK(!sees(queries.end));
        }
      }
}

TEST_CASE("tiles: rows hold every token once") {
  each_axis(14, [](const Axis& axis) {
    if (axis.window != 0 || axis.causal) return;
    for (int tile = 1; tile <= 5; ++tile)
      for (int origin = 0; origin < axis.extent; ++origin) {
        const int local = axis.extent - origin;
        std::vector<int> times(static_cast<std::size_t>(local));
        for (int n = 0; n < rows_along(axis, local, tile); ++n) {
          const Stretch row = row_stretch(axis, origin, local, tile, n);
          REQUIRE(row.count <= tile);
          for (int i = 0; i < row.count; ++i)
            ++times[static_cast<std::size_t>(row.first + i * axis.dilation - origin)];
        }
        REQUIRE(std::ranges::all_of(times, [](int n) { return n == 1; }));
      }
  });
}

}  // namespace vicinal
