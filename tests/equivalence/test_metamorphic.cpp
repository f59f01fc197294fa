// Relations that must hold between runs, whatever the numbers are: no oracle is needed to see one broken.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <functional>

#include "tests/support/plain_attention.h"

namespace vicinal::testing {
namespace {

using Values = std::vector<double>;

std::string block(const std::string& statements) {
  return "attention t {\n" + statements + "\n}\n";
}

Values values(const HostTensor& t) {
  Values all;
  t.each([&](const Index& i) { all.push_back(t.at(i)); });
  return all;
}

struct Outcome {
  Values out, lse;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

Outcome run(const std::string& text, const Problem& problem, const CompileOptions& options = {}) {
  interpret(text, problem, options);
  return {values(problem.out), values(problem.lse)};
}

// Sums in another order may differ by rounding: of doubles in `out`, of one fp32 rounding in `lse`.
void check_same(const Outcome& a, const Outcome& b, double lse_shift = 0) {
  REQUIRE(a.out.size() == b.out.size());
  REQUIRE(a.lse.size() == b.lse.size());
  double out = 0, lse = 0;
  for (std::size_t i = 0; i < a.out.size(); ++i) out = std::max(out, std::fabs(a.out[i] - b.out[i]));
  for (std::size_t i = 0; i < a.lse.size(); ++i)
    if (a.lse[i] != b.lse[i])
      lse = std::max(lse, std::fabs(a.lse[i] + lse_shift - b.lse[i]) /
                              ulp(DType::f32, std::fabs(b.lse[i]) + std::fabs(lse_shift)));
  CHECK(out <= 1e-13 * 16);
  CHECK(lse <= 2);
}

// Part of a tensor, in place: every `step`th from `from` on.
Tensor slice(Tensor t, std::size_t dimension, std::int64_t from, std::int64_t count, std::int64_t step = 1) {
  if (t.data != nullptr)
    t.data = static_cast<std::byte*>(t.data) +
             from * t.strides[dimension] * static_cast<std::int64_t>(size_of(t.dtype));
  t.shape[dimension] = count;
  t.strides[dimension] *= step;
  return t;
}

void swap_along(HostTensor& t, std::size_t dimension) {
  const HostTensor before = t;
  t.fill([&](Index i) {
    i[dimension] = t.shape()[dimension] - 1 - i[dimension];
    return before.at(i);
  });
}

const char* const kAxes3 =
    "axis t { window = 3, causal }\naxis y { window = 2, dilation = 2 }\naxis x { window = 4, stride = 2 }\n"
    "score = score - 0.125 * (q.t - k.t) + 0.0625 * (q.x + k.y)\nmask = (q + k) % 5 != 2";

ProblemShape grid(const Index& extents) {
  ProblemShape s;
  s.queries = s.keys = extents;
  return s;
}

}  // namespace

TEST_CASE("metamorphic: a window that covers everything is full attention") {
  const Problem p = make_problem(grid({13}));
  const Outcome full = run(block(""), p);
  CHECK(run(block("axis t"), p) == full);
  CHECK(run(block("axis t { window = 13 }"), p) == full);
  CHECK(run(block("axis t { window = 13, stride = 13 }"), p) == full);
  CHECK(run(block("mask = abs(q - k) < tokens"), p) == full);
  const Outcome causal = run(block("mask = k <= q"), p);
  CHECK(run(block("axis t { causal }"), p) == causal);
  CHECK(run(block("axis t { window = 13, causal }"), p) == causal);
  CHECK(causal.out != full.out);
}

TEST_CASE("metamorphic: batches and heads are independent") {
  ProblemShape s;
  s.batch = 3, s.heads = 4, s.kv_heads = 4;
  for (const std::size_t dimension : {0u, 1u}) {
    Problem p = make_problem(s);
    interpret(block("mask = k <= q"), p);
    HostTensor wanted = p.out;
    swap_along(wanted, dimension);
    for (HostTensor* t : {&p.q, &p.k, &p.v}) swap_along(*t, dimension);
    interpret(block("mask = k <= q"), p);
    CHECK(values(p.out) == values(wanted));
  }
}

TEST_CASE("metamorphic: a constant added to every score moves only the lse") {
  const Problem p = make_problem({});
  const Outcome before = run(block("mask = k <= q"), p);
  for (const double shift : {3.0, -40.0, 200.0})
    check_same(before, run(block(fmt::format("mask = k <= q\nscore = score + {:.1f}", shift)), p), shift);
}

TEST_CASE("metamorphic: equal masks, written differently") {
  const Problem p = make_problem({});
  const std::pair<std::string, std::string> pairs[] = {
      {"k <= q", "not not (k <= q)"},
      {"k <= q", "not (k > q)"},
      {"not (k <= q and q - k < 4)", "not (k <= q) or not (q - k < 4)"},
      {"not (k <= q or q % 3 == 0)", "not (k <= q) and not (q % 3 == 0)"},
      {"k <= q and true", "k <= q or false"},
      {"k <= q and (q < 5 or k < 3)", "(k <= q and q < 5) or (k <= q and k < 3)"},
      {"k <= q", "k <= q and k <= q"},
      {"0 <= q - k < 4", "q - k >= 0 and q - k < 4"},
      {"(k <= q) == (q % 2 == 0)", "(k <= q) if q % 2 == 0 else (k > q)"},
      {"(k <= q) != (q % 2 == 0)", "(k <= q and not (q % 2 == 0)) or (k > q and q % 2 == 0)"},
      {"any(i in 0..3: q - k == i)", "0 <= q - k <= 2"},
      {"q // 4 == k // 4", "q >> 2 == k >> 2"},
      {"q % 8 == k % 8", "q & 7 == k & 7"},
  };
  for (const auto& [a, b] : pairs) {
    CAPTURE(a);
    CHECK(run(block(fmt::format("mask = {}", a)), p) == run(block(fmt::format("mask = {}", b)), p));
  }
}

TEST_CASE("metamorphic: keys in parts, joined by their lse, are the whole") {
  const std::string text =
      block("align = end\nmask = k <= q and (q + k) % 4 != 1\nscore = score - 0.25 * (q - k)");
  ProblemShape s;
  s.queries = {11}, s.keys = {17};
  const Problem whole = make_problem(s);
  const Outcome wanted = run(text, whole);
  const Kernel kernel = compile_for_interpreter(text, s);
  for (const std::vector<std::int64_t>& cuts :
       {std::vector<std::int64_t>{0, 17}, {0, 5, 17}, {0, 1, 2, 16, 17}, {0, 8, 8, 17}}) {
    std::vector<HostTensor> outs, lses;
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
      outs.emplace_back(DType::f64, whole.out.shape());
      lses.emplace_back(DType::f32, whole.lse.shape());
      RunArguments a = whole.arguments();
      a.k = slice(a.k, 2, cuts[i], cuts[i + 1] - cuts[i]);
      a.v = slice(a.v, 2, cuts[i], cuts[i + 1] - cuts[i]);
      a.out = outs.back().view(), a.lse = lses.back().view();
      a.key_grid = {17}, a.k_origin = {cuts[i]};
      kernel.run(a).value();
    }
    std::vector<Tensor> out_views, lse_views;
    for (std::size_t i = 0; i < outs.size(); ++i)
      out_views.push_back(outs[i].view()), lse_views.push_back(lses[i].view());
    HostTensor out(DType::f64, whole.out.shape()), lse(DType::f32, whole.lse.shape());
    merge(out_views, lse_views, out.view(), lse.view()).value();
    // A part's lse is fp32, so that its weight is known to 2^-24 of the lse's size.
    double worst = 0;
    for (std::size_t i = 0; i < wanted.out.size(); ++i)
      worst = std::max(worst, std::fabs(values(out)[i] - wanted.out[i]));
    CHECK(worst < 16 * 0x1p-24);
    for (std::size_t i = 0; i < wanted.lse.size(); ++i)
      CHECK((values(lse)[i] == wanted.lse[i] ||
             std::fabs(values(lse)[i] - wanted.lse[i]) <= 4 * ulp(DType::f32, 4)));
  }
}

TEST_CASE("metamorphic: a dilation of d is d interleaved problems") {
  for (const std::int64_t dilation : {2, 3, 5}) {
    for (const char* more : {"", ", causal", ", stride = 2", ", stride = 3, causal"}) {
      Problem whole = make_problem(grid({17}));
      const Outcome wanted =
          run(block(fmt::format("axis t {{ window = 3, dilation = {}{} }}", dilation, more)), whole);
      const Kernel part =
          compile_for_interpreter(block(fmt::format("axis t {{ window = 3{} }}", more)), whole.shape);
      whole.out.fill(0.0);
      for (std::int64_t group = 0; group < dilation; ++group) {
        const std::int64_t count = (17 - group + dilation - 1) / dilation;
        RunArguments a = whole.arguments();
        for (Tensor* t : {&a.q, &a.k, &a.v, &a.out, &*a.lse}) *t = slice(*t, 2, group, count, dilation);
        part.run(a).value();
      }
      CHECK(wanted == Outcome{values(whole.out), values(whole.lse)});
    }
  }
}

TEST_CASE("metamorphic: axes of one token change nothing") {
  const Problem flat = make_problem(grid({12}));
  const Outcome wanted =
      run(block("axis x { window = 5, stride = 2 }\nscore = score - abs(q.x - k.x)"), flat);
  for (const Index& extents : {Index{1, 12}, {12, 1}, {1, 12, 1}, {1, 1, 12}, {12, 1, 1}}) {
    std::string axes;
    for (std::size_t i = 0; i < extents.size(); ++i)
      axes += extents[i] == 12 ? "axis x { window = 5, stride = 2 }\n"
                               : fmt::format("axis a{} {{ window = 1 }}\n", i);
    // The same memory, seen through more dimensions.
    Problem p = flat;
    p.shape.queries = p.shape.keys = extents;
    RunArguments a = p.arguments();
    a.grid = extents;
    compile_for_interpreter(block(axes + "score = score - abs(q.x - k.x)"), p.shape).run(a).value();
    CHECK(wanted == Outcome{values(p.out), values(p.lse)});
  }
}

TEST_CASE("metamorphic: a grid's tokens may stand in one dimension") {
  const std::string text =
      block("axis y { window = 3 }\naxis x { window = 4, causal }\nscore = score - 0.5 * (q.y - k.x)");
  for (const Layout layout : {Layout::bhnd, Layout::bnhd}) {
    ProblemShape s = grid({5, 6});
    s.layout = layout;
    Problem p = make_problem(s);
    const Outcome wanted = run(text, p);
    p.out.fill(0.0);
    RunArguments a = p.arguments();
    a.grid = {5, 6};
    for (Tensor* t : {&a.q, &a.k, &a.v, &a.out, &*a.lse}) {
      t->shape.erase(t->shape.begin() + 2);
      t->shape[2] = 30;
      t->strides.erase(t->strides.begin() + 2);
    }
    compile_for_interpreter(text, s).run(a).value();
    CHECK(wanted == Outcome{values(p.out), values(p.lse)});
  }
}

TEST_CASE("metamorphic: axes may change places") {
  const Problem p = make_problem(grid({6, 9}));
  const Outcome wanted = run(block("axis y { window = 3, causal }\naxis x { window = 4, dilation = 2 "
                                   "}\nscore = score - 0.5 * (q.y - k.y)"),
                             p);
  Problem t = p;
  t.shape.queries = t.shape.keys = {9, 6};
  RunArguments a = p.arguments();
  for (Tensor* x : {&a.q, &a.k, &a.v, &a.out, &*a.lse})
    std::swap(x->shape[2], x->shape[3]), std::swap(x->strides[2], x->strides[3]);
  compile_for_interpreter(block("axis x { window = 4, dilation = 2 }\naxis y { window = 3, causal }\nscore = "
                                "score - 0.5 * (q.y - k.y)"),
                          t.shape)
      .run(a)
      .value();
  check_same(wanted, {values(p.out), values(p.lse)});
}

TEST_CASE("metamorphic: the result is linear in V") {
  for (const char* normalize : {"softmax", "sigmoid", "none"}) {
    Problem p = make_problem({});
    p.shape.lse = std::string_view(normalize) == "softmax";
    const std::string text = block(fmt::format("normalize = {}\nmask = k <= q", normalize));
    interpret(text, p);
    const Values first = values(p.out);
    const HostTensor v = p.v;
    std::mt19937 random(9);
    p.v.fill_random(random);
    interpret(text, p);
    const Values second = values(p.out);
    const HostTensor w = p.v;
    p.v.fill([&](const Index& i) { return 2 * v.at(i) - 0.5 * w.at(i); });
    interpret(text, p);
    const Values both = values(p.out);
    double worst = 0;
    for (std::size_t i = 0; i < both.size(); ++i)
      worst = std::max(worst, std::fabs(both[i] - (2 * first[i] - 0.5 * second[i])));
    CHECK(worst < 1e-13 * 32);
  }
}

TEST_CASE("metamorphic: a shard with its origin is that part of the whole") {
  // Sequences: any split of the queries, all keys.
  const std::string causal =
      block("align = end\nmask = k <= q and q.index % 4 != 1\nscore = score + 0.125 * (q % 3) - 0.25 * k");
  ProblemShape s;
  s.queries = {11}, s.keys = {14};
  Problem whole = make_problem(s);
  const Outcome wanted = run(causal, whole);
  whole.out.fill(0.0);
  for (const auto& [from, count] : {std::pair{0, 4}, {4, 1}, {5, 6}}) {
    RunArguments a = whole.arguments();
    for (Tensor* t : {&a.q, &a.out, &*a.lse}) *t = slice(*t, 2, from, count);
    a.grid = {11}, a.q_origin = {from};
    a.key_grid = {14};
    compile_for_interpreter(causal, s).run(a).value();
  }
  CHECK(wanted == Outcome{values(whole.out), values(whole.lse)});

  // Three axes: shards of the queries with a halo of keys around them.
  Problem all = make_problem(grid({5, 6, 8}));
  const Outcome full = run(block(kAxes3), all);
  all.out.fill(0.0);
  const Kernel kernel = compile_for_interpreter(block(kAxes3), all.shape);
  const std::int64_t parts[] = {2, 3, 4}, reach[] = {3, 4, 5};
  for (std::int64_t t = 0; t < 5; t += parts[0])
    for (std::int64_t y = 0; y < 6; y += parts[1])
      for (std::int64_t x = 0; x < 8; x += parts[2]) {
        RunArguments a = all.arguments();
        a.grid = {5, 6, 8};
        const std::int64_t at[] = {t, y, x};
        for (std::size_t i = 0; i < 3; ++i) {
          const std::int64_t extent = a.grid[i], count = std::min(parts[i], extent - at[i]);
          const std::int64_t first = std::max<std::int64_t>(0, at[i] - reach[i]),
                             last = std::min(extent, at[i] + count + reach[i]);
          for (Tensor* part : {&a.q, &a.out, &*a.lse}) *part = slice(*part, 2 + i, at[i], count);
          for (Tensor* part : {&a.k, &a.v}) *part = slice(*part, 2 + i, first, last - first);
          a.q_origin.push_back(at[i]);
          a.k_origin.push_back(first);
        }
        kernel.run(a).value();
      }
  CHECK(full == Outcome{values(all.out), values(all.lse)});
}

TEST_CASE("metamorphic: params baked in or given at the run are the same") {
  const std::string text = block(
      "param w: int = 2\nparam s: int = 1\nparam gain: float = 0.5\nparam flip: bool = false\n"
      "axis y { window = w + 1, stride = s }\naxis x { window = 2 * w }\n"
      "score = score * gain\nmask = (q + k) % 3 != 0 or flip");
  const Problem p = make_problem(grid({9, 8}));
  for (const auto& [w, s, gain, flip] :
       {std::tuple{2, 1, 0.1, false}, {3, 2, -1.7, true}, {4, 5, 0.0, true}}) {
    const std::map<std::string, ParamValue> params = {
        {"w", std::int64_t{w}}, {"s", std::int64_t{s}}, {"gain", gain}, {"flip", flip}};
    CompileOptions baked, dynamic;
    baked.params = params;
    dynamic.dynamic = {"w", "s", "gain", "flip"};
    Problem given = p;
    given.dynamic = params;
    CHECK(run(text, p, baked) == run(text, given, dynamic));
  }
}

}  // namespace vicinal::testing
