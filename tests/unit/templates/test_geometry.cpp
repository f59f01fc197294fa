// geometry.cuh on the host: worked examples, then every small axis against loops that follow the language's
// text.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "vicinal/geometry.cuh"

namespace vicinal {
namespace {

struct Example {
  Axis axis;
  std::vector<KeyRange> ranges;  // of the queries 0, 1, ...
};

// extent, window, dilation, stride, causal
const Example kWorked[] = {
    {{8, 3, 1, 1, false}, {{0, 3}, {0, 3}, {1, 4}, {2, 5}, {3, 6}, {4, 7}, {5, 8}, {5, 8}}},
    {{8, 4, 1, 1, false}, {{0, 4}, {0, 4}, {0, 4}, {1, 5}, {2, 6}, {3, 7}, {4, 8}, {4, 8}}},
    {{8, 5, 1, 3, false}, {{0, 5}, {0, 5}, {0, 5}, {2, 7}, {2, 7}, {2, 7}, {3, 8}, {3, 8}}},
    {{10, 4, 1, 4, false},
     {{0, 4}, {0, 4}, {0, 4}, {0, 4}, {4, 8}, {4, 8}, {4, 8}, {4, 8}, {6, 10}, {6, 10}}},
    {{8, 3, 1, 1, true}, {{0, 1}, {0, 2}, {0, 3}, {1, 4}, {2, 5}, {3, 6}, {4, 7}, {5, 8}}},
    {{8, 4, 1, 2, true}, {{0, 1}, {0, 2}, {0, 3}, {0, 4}, {2, 5}, {2, 6}, {4, 7}, {4, 8}}},
    {{8, 5, 1, 3, true}, {{0, 1}, {0, 2}, {0, 3}, {1, 4}, {1, 5}, {1, 6}, {3, 7}, {3, 8}}},
    {{10, 4, 1, 4, true}, {{0, 1}, {0, 2}, {0, 3}, {0, 4}, {4, 5}, {4, 6}, {4, 7}, {4, 8}, {6, 9}, {6, 10}}},
};

std::string name_of(const Axis& a) {
  return fmt::format("extent {} window {} dilation {} stride {}{}", a.extent, a.window, a.dilation, a.stride,
                     a.causal ? " causal" : "");
}

std::vector<int> keys_seen(const Axis& axis, int x) {
  const KeyRange range = neighborhood(axis, x);
  std::vector<int> keys;
  for (int y = 0; y < axis.extent; ++y) {
    if (contains(axis, range, x, y)) keys.push_back(y);
  }
  return keys;
}

// The language's words, one after the other, on lists instead of ranges.
std::vector<int> keys_by_definition(const Axis& axis, int x) {
  std::vector<int> group;  // the tokens y with y % d == x % d
  for (int y = 0; y < axis.extent; ++y) {
    if (y % axis.dilation == x % axis.dilation) group.push_back(y);
  }
  const int n = static_cast<int>(group.size());
  const int p = static_cast<int>(std::find(group.begin(), group.end(), x) - group.begin());
  const int window = axis.window == 0 ? n : axis.window;

  // The leader: the last query of the stride when causal, the middle one otherwise, but never past the end.
  const int first = p - p % axis.stride;
  const int c = std::min(first + (axis.causal ? axis.stride - 1 : axis.stride / 2), n - 1);

  std::vector<int> keys;
  if (axis.causal) {
    for (int r = 0; r <= p; ++r) {
      if (axis.window == 0 || r > c - window) keys.push_back(group[static_cast<std::size_t>(r)]);
    }
  } else {
    int start = c - window / 2;  // shifted inward until it fits
    while (start + window > n) --start;
    while (start < 0) ++start;
    for (int r = start; r < start + window; ++r) keys.push_back(group[static_cast<std::size_t>(r)]);
  }
  return keys;
}

}  // namespace

TEST_CASE("geometry: worked examples") {
  for (const Example& example : kWorked) {
    INFO(name_of(example.axis));
    for (int x = 0; x < example.axis.extent; ++x) {
      INFO("query ", x);
      const KeyRange range = neighborhood(example.axis, x),
                     wanted = example.ranges[static_cast<std::size_t>(x)];
      CHECK(range.begin == wanted.begin);
      CHECK(range.end == wanted.end);
    }
  }
}

TEST_CASE("geometry: a dilated window sees its own group only") {
  const Axis axis{11, 3, 3, 1, false};
  const struct {
    std::vector<int> queries, keys;
  } groups[] = {{{0, 3}, {0, 3, 6}},
                {{6, 9}, {3, 6, 9}},
                {{1, 4}, {1, 4, 7}},
                {{7, 10}, {4, 7, 10}},
                {{2, 5, 8}, {2, 5, 8}}};
  for (const auto& group : groups) {
    for (const int x : group.queries) CHECK(keys_seen(axis, x) == group.keys);
  }
}

TEST_CASE("geometry: every axis up to 13 tokens, against the definition") {
  int axes = 0;
  for (int extent = 1; extent <= 13; ++extent) {
    for (int dilation = 1; dilation <= extent; ++dilation) {
      for (int window = 0; window * dilation <= extent; ++window) {
        const int strides = window == 0 ? 4 : window;
        for (int stride = 1; stride <= strides; ++stride) {
          for (const bool causal : {false, true}) {
            const Axis axis{extent, window, dilation, stride, causal};
            REQUIRE(window_fits(axis));
            ++axes;
            for (int x = 0; x < extent; ++x) {
              if (keys_seen(axis, x) == keys_by_definition(axis, x)) continue;
              FAIL_CHECK("query ", x, " of ", name_of(axis));
            }
          }
        }
      }
    }
  }
  CHECK(axes > 1000);
}

TEST_CASE("geometry: what follows from the definition") {
  for (int extent = 1; extent <= 24; ++extent) {
    for (int window = 1; window <= extent; ++window) {
      for (int x = 0; x < extent; ++x) {
        // Windows keep their size, and a window of the whole axis is the whole axis.
        const KeyRange range = neighborhood(Axis{extent, window, 1, 1, false}, x);
        CHECK(range.end - range.begin == window);
        CHECK((range.begin <= x && x < range.end));
        // The ends of the ranges are in the order of the queries, which kernels use to bound a tile.
        if (x == 0) continue;
        for (const bool causal : {false, true}) {
          for (int stride = 1; stride <= window; ++stride) {
            const Axis axis{extent, window, 1, stride, causal};
            CHECK(neighborhood(axis, x - 1).begin <= neighborhood(axis, x).begin);
            CHECK(neighborhood(axis, x - 1).end <= neighborhood(axis, x).end);
          }
        }
      }
    }
  }
}

TEST_CASE("geometry: which windows fit") {
  CHECK(window_fits({8, 8, 1, 1, false}));
  CHECK(!window_fits({8, 9, 1, 1, false}));
  CHECK(window_fits({9, 3, 3, 1, false}));
  CHECK(!window_fits({8, 3, 3, 1, false}));
  CHECK(!window_fits({0x7fffffff, 0x7fffffff, 0x7fffffff, 1, false}));
  CHECK(window_fits({0, 0, 4, 1, false}));
  CHECK(group_size(11, 3, 0) == 4);
  CHECK(group_size(11, 3, 2) == 3);
  CHECK(group_size(2, 3, 2) == 0);
}

}  // namespace vicinal
