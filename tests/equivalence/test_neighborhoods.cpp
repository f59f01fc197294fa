// Neighborhoods: which keys a query sees, compared exactly. Queries and keys of zeros give every kept key the
// same weight, and one-hot values say which keys those are.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "runtime/cpu/interpreter.h"
#include "runtime/kernel_impl.h"
#include "tests/support/plain_attention.h"

namespace vicinal::testing {
namespace {

struct Case {
  std::vector<PlainAxis> axes;  // with their lengths

  Index extents() const {
    Index e;
    for (const PlainAxis& a : axes) e.push_back(a.length);
    return e;
  }
  std::int64_t tokens() const {
    std::int64_t n = 1;
    for (const PlainAxis& a : axes) n *= a.length;
    return n;
  }
  std::string text() const {
    std::string text = "attention t {\n";
    for (std::size_t i = 0; i < axes.size(); ++i) {
      const PlainAxis& a = axes[i];
      text += fmt::format("  axis a{} {{ {}dilation = {}, stride = {}{} }}\n", i,
                          a.window ? fmt::format("window = {}, ", a.window) : "", a.dilation, a.stride,
                          a.causal ? ", causal" : "");
    }
    return text + "}\n";
  }
};

ProblemShape shape_of(const Case& c) {
  ProblemShape s;
  s.batch = s.heads = s.kv_heads = 1;
  s.queries = s.keys = c.extents();
  s.lse = false;
  return s;
}

Index coordinates(std::int64_t token, const Index& extents) {
  Index at(extents.size());
  for (std::size_t i = extents.size(); i-- > 0; token /= extents[i]) at[i] = token % extents[i];
  return at;
}

// By token of the grid: whether the query sees it.
std::vector<bool> wanted(const Case& c, std::int64_t query) {
  const Index extents = c.extents(), at = coordinates(query, extents);
  std::vector<bool> sees(static_cast<std::size_t>(c.tokens()), true);
  for (std::size_t i = 0, after = sees.size(), before = 1; i < extents.size(); ++i) {
    const auto extent = static_cast<std::size_t>(extents[i]);
    std::vector<bool> along(extent);
    for (std::int64_t y : seen_by(c.axes[i], at[i])) along[static_cast<std::size_t>(y)] = true;
    after /= extent;
    for (std::size_t b = 0; b < before; ++b)
      for (std::size_t y = 0; y < extent; ++y)
        if (!along[y])
          std::fill_n(sees.begin() + static_cast<std::ptrdiff_t>((b * extent + y) * after), after, false);
    before *= extent;
  }
  return sees;
}

// Through the public API, all queries at once.
void check_one_hot(const Case& c) {
  CAPTURE(c.text());
  CAPTURE(c.extents());
  constexpr std::int64_t kWidth = 256;
  ProblemShape s = shape_of(c);
  const std::int64_t tokens = c.tokens();
  s.value_dim = std::min(kWidth, (tokens + 7) / 8 * 8);
  Problem p = make_problem(s);
  p.q.fill(0.0), p.k.fill(0.0);
  const Kernel kernel = compile_for_interpreter(c.text(), s);
  std::vector<std::vector<bool>> want;
  for (std::int64_t q = 0; q < tokens; ++q) want.push_back(wanted(c, q));
  int wrong = 0;
  for (std::int64_t first = 0; first < tokens; first += s.value_dim) {
    std::int64_t i = 0, j = 0;
    p.v.fill([&](const Index& at) { return j++ / s.value_dim - first == at.back(); });
    kernel.run(p.arguments()).value();
    p.out.each([&](const Index& at) {
      const std::int64_t query = i / s.value_dim, key = first + i++ % s.value_dim;
      if (key >= tokens) return;
      const std::vector<bool>& row = want[static_cast<std::size_t>(query)];
      const double weight = p.out.at(at);
      const bool kept = row[static_cast<std::size_t>(key)];
      const auto count = static_cast<double>(std::count(row.begin(), row.end(), true));
      if ((weight != 0) == kept && (!kept || std::fabs(1 / weight - count) < 1e-6)) return;
      if (++wrong == 1)
        FAIL_CHECK("query ", query, " key ", key, " weight ", weight, ", kept ", kept, " of ", count);
    });
  }
  CHECK(wrong == 0);
}

// Some queries, where all of them would take too long.
void check_rows(const Case& c, std::mt19937& random) {
  CAPTURE(c.text());
  CAPTURE(c.extents());
  ProblemShape s = shape_of(c);
  s.dtype = DType::f16;
  Problem p;
  p.shape = s;
  for (HostTensor* t : {&p.q, &p.k, &p.v, &p.out}) *t = make_tensor(s, 1, s.queries, 8);
  const Kernel kernel = compile_for_interpreter(c.text(), s);
  const runtime::Problem bound = kernel.impl().bind(p.arguments()).value();
  const cpu::Interpreter interpreter(kernel.impl().variant.checked.module, bound);
  std::vector<std::int64_t> queries = {0, c.tokens() - 1, c.tokens() / 2};
  for (std::int64_t i = 0; i < std::min<std::int64_t>(40, 400'000 / c.tokens()); ++i)
    queries.push_back(static_cast<std::int64_t>(random()) % c.tokens());
  for (std::int64_t q : queries) {
    CAPTURE(q);
    CHECK(interpreter.kept({0, 0, q}) == wanted(c, q));
  }
}

template <class Visit>
void every_causality(Case c, Visit visit) {
  for (unsigned bits = 0; bits < 1u << c.axes.size(); ++bits) {
    for (std::size_t i = 0; i < c.axes.size(); ++i) c.axes[i].causal = (bits >> i & 1) != 0;
    visit(c);
  }
}

Case one(std::int64_t length, std::int64_t window, std::int64_t stride, std::int64_t dilation) {
  return {{{length, window, dilation, stride}}};
}
Case two(Index l, Index w, Index s, Index d) {
  return {{{l[0], w[0], d[0], s[0]}, {l[1], w[1], d[1], s[1]}}};
}
Case three(Index l, Index w, Index s, Index d) {
  return {{{l[0], w[0], d[0], s[0]}, {l[1], w[1], d[1], s[1]}, {l[2], w[2], d[2], s[2]}}};
}

}  // namespace

TEST_CASE("neighborhoods: key ranges worked by hand") {
  using Keys = std::vector<std::int64_t>;
  struct Worked {
    PlainAxis axis;
    std::int64_t query;
    Keys keys;
  };
  const Worked rows[] = {
      {{8, 3}, 0, {0, 1, 2}},
      {{8, 3}, 1, {0, 1, 2}},
      {{8, 3}, 4, {3, 4, 5}},
      {{8, 3}, 7, {5, 6, 7}},
      {{8, 4}, 4, {2, 3, 4, 5}},  // one key more on the left
      {{8, 4}, 1, {0, 1, 2, 3}},
      {{8, 4}, 7, {4, 5, 6, 7}},
      {{8, 3, 1, 1, true}, 1, {0, 1}},
      {{8, 3, 1, 1, true}, 5, {3, 4, 5}},
      {{8, 2, 3}, 7, {4, 7}},  // group 1, 4, 7
      {{8, 2, 3}, 4, {1, 4}},
      {{8, 2, 3}, 2, {2, 5}},
      {{8, 4, 1, 2}, 0, {0, 1, 2, 3}},
      {{8, 4, 1, 2}, 2, {1, 2, 3, 4}},  // the leader is 3
      {{8, 4, 1, 2}, 3, {1, 2, 3, 4}},
      {{8, 4, 1, 2}, 6, {4, 5, 6, 7}},
      {{10, 4, 1, 4, true}, 5, {4, 5}},  // a stride of the window: blocks
      {{10, 4, 1, 4, true}, 3, {0, 1, 2, 3}},
      {{10, 4, 1, 4, true}, 8, {6, 7, 8}},  // a ragged last group: its leader is the last token
      {{10, 4, 1, 4}, 9, {6, 7, 8, 9}},
      {{9, 4, 1, 4}, 8, {5, 6, 7, 8}},
      {{9, 3, 2, 2, true}, 6, {2, 4, 6}},  // p = 3, leader 3
      {{9, 3, 2, 2, true}, 8, {4, 6, 8}},  // leader min(5, 4)
      {{5, 0, 2, 1, false}, 3, {1, 3}},
      {{5, 5}, 2, {0, 1, 2, 3, 4}},
      {{1, 1}, 0, {0}},
  };
  for (const Worked& row : rows) {
    const Case c{{row.axis}};
    CAPTURE(c.text());
    CAPTURE(row.query);
    CHECK(seen_by(row.axis, row.query) == row.keys);
    check_one_hot(c);
  }
}

TEST_CASE("neighborhoods: one axis") {
  for (const Case& c : {one(128, 63, 31, 1), one(256, 255, 82, 1), one(128, 8, 7, 5), one(125, 15, 1, 1),
                        one(17, 12, 1, 1), one(256, 136, 136, 1), one(64, 64, 1, 1), one(65, 16, 16, 1),
                        one(64, 16, 16, 1), one(63, 1, 1, 1), one(64, 1, 1, 63), one(30, 2, 2, 15)})
    every_causality(c, check_one_hot);
  std::mt19937 random(1);
  for (const Case& c : {one(32768, 63, 1, 8), one(32768, 2048, 256, 1), one(2048, 2048, 1, 1)})
    every_causality(c, [&](const Case& x) { check_rows(x, random); });
}

TEST_CASE("neighborhoods: two axes") {
  for (const Case& c : {two({32, 16}, {3, 3}, {1, 1}, {1, 1}), two({5, 25}, {5, 16}, {1, 16}, {1, 1}),
                        two({19, 29}, {8, 8}, {1, 1}, {2, 3}), two({11, 20}, {11, 20}, {4, 8}, {1, 1}),
                        two({1, 30}, {1, 4}, {1, 3}, {1, 2}), two({17, 11}, {12, 5}, {1, 5}, {1, 2})})
    every_causality(c, check_one_hot);
  std::mt19937 random(2);
  for (const Case& c : {two({67, 80}, {12, 7}, {8, 4}, {5, 11}), two({33, 33}, {24, 16}, {1, 1}, {1, 1}),
                        two({28, 40}, {17, 31}, {1, 1}, {1, 1}), two({44, 80}, {44, 80}, {4, 8}, {1, 1}),
                        two({84, 69}, {7, 20}, {1, 6}, {5, 1}), two({44, 80}, {24, 16}, {8, 16}, {1, 1})})
    every_causality(c, [&](const Case& x) { check_rows(x, random); });
}

TEST_CASE("neighborhoods: three axes") {
  for (const Case& c :
       {three({8, 4, 8}, {7, 3, 7}, {1, 1, 1}, {1, 1, 1}), three({7, 5, 6}, {2, 2, 3}, {2, 1, 3}, {3, 2, 2})})
    every_causality(c, check_one_hot);
  std::mt19937 random(3);
  for (const Case& c : {three({32, 10, 10}, {7, 3, 3}, {5, 1, 1}, {1, 2, 3}),
                        three({13, 11, 9}, {3, 4, 3}, {2, 3, 3}, {3, 2, 2}),
                        three({57, 20, 88}, {20, 4, 6}, {1, 1, 1}, {2, 1, 1}),
                        three({30, 48, 80}, {18, 24, 24}, {16, 8, 8}, {1, 1, 1}),
                        three({16, 44, 80}, {12, 32, 32}, {8, 22, 16}, {1, 1, 1}),
                        three({5, 45, 73}, {2, 7, 32}, {1, 4, 32}, {2, 2, 2}),
                        three({61, 61, 61}, {10, 10, 10}, {1, 1, 1}, {2, 2, 2})})
    every_causality(c, [&](const Case& x) { check_rows(x, random); });
}

TEST_CASE("neighborhoods: random ones") {
  std::mt19937 random(4);
  const auto uniform = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  for (int n = 0; n < 150; ++n) {
    Case c;
    const std::int64_t rank = uniform(1, 3), longest = rank == 1 ? 150 : rank == 2 ? 14 : 6;
    for (std::int64_t i = 0; i < rank; ++i) {
      PlainAxis a;
      a.length = uniform(1, longest);
      a.window = uniform(0, a.length);
      a.stride = a.window == 0 ? 1 : uniform(1, a.window);
      a.dilation = uniform(1, a.window == 0 ? a.length : a.length / a.window);
      a.causal = uniform(0, 1) == 1;
      c.axes.push_back(a);
    }
    check_one_hot(c);
  }
}

}  // namespace vicinal::testing
