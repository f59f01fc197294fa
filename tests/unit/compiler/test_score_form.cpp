// Scores in parts: which parts, and that they come to the score again.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <random>

#include "compiler/ir/verify.h"
#include "compiler/passes/score_form.h"
#include "compiler/passes/tanh_gain.h"
#include "tests/support/random_spec.h"
#include "tests/unit/compiler/compile_text.h"
#include "tests/unit/compiler/node_values.h"
#include "tests/unit/compiler/prefix.h"

namespace vicinal {
namespace {

using ir::NodeId;
using ir::Root;
using ir::SymbolKind;

constexpr float kScale = 0.125f;

ir::Module grid_keys(const testing::CompiledText& compiled) {
  REQUIRE_MESSAGE(compiled.variants.size() == 1, compiled.messages());
  return compiled.variants[0].specialized.grid.module;
}

struct Parts {
  std::string core, factor = "none", slope = "none", shift = "none";
  friend bool operator==(const Parts&, const Parts&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Parts& p) {
    return out << "core " << p.core << ", factor " << p.factor << ", slope " << p.slope << ", shift "
               << p.shift;
  }
};

Parts parts(const std::string& body) {
  const passes::ScoreForm form = passes::score_form(grid_keys(testing::compile_block(body)), kScale);
  const ir::Module& m = form.module;
  CHECK(!ir::verify(m));
  CHECK(!m.root(Root::scale).valid());
  const auto text = [&](NodeId id) { return testing::prefix(m, id); };
  CHECK(form.core_is_score == (text(m.root(Root::score)) == "score"));
  return {text(m.root(Root::score)), text(form.factor), text(form.slope), text(form.shift)};
}

constexpr const char* kHeads =
    "input s: float[heads]\n input u: float[tokens]\n input v: float[keys]\n score = ";
Parts score(const std::string& expression) {
  return parts(kHeads + expression);
}

// The same numbers for the same symbols and indices, near 1 and of either sign.
struct Point {
  std::int32_t q, k;
  unsigned seed;

  double real(std::uint32_t x) const {
    x = (x ^ seed) * 2654435761u, x ^= x >> 15, x *= 2246822519u, x ^= x >> 13;
    return (static_cast<double>(x % 4001) - 2000) / 1000;
  }
  ir::Value value(ir::Type type, std::uint32_t x) const {
    const double r = real(x);
    return type == ir::Type::real      ? ir::real_value(r)
           : type == ir::Type::integer ? ir::int_value(static_cast<std::int32_t>(4 * r))
                                       : ir::bool_value(r > 0);
  }
  std::vector<ir::Value> values(const ir::Module& m, double score) const {
    const auto symbol = [&](const ir::Symbol& s) {
      const bool single = m.axes.size() == 1;
      const auto of = [&](std::int32_t position) {
        return ir::int_value(single ? position : (position + static_cast<std::int32_t>(s.index)) % 7);
      };
      switch (s.kind) {
        case SymbolKind::q: return ir::int_value(q);
        case SymbolKind::k: return ir::int_value(k);
        case SymbolKind::q_index: return ir::int_value(m.align_end ? q / 2 : q);
        case SymbolKind::q_axis: return of(q);
        case SymbolKind::k_axis: return of(k);
        case SymbolKind::score: return ir::real_value(score);
        case SymbolKind::param: return value(m.params[s.index].type, s.index + 77);
        default: return ir::int_value(2 + static_cast<std::int32_t>(s.kind) % 5);
      }
    };
    const auto load = [&](ir::Type type, std::uint32_t input, const std::vector<std::int32_t>& indices) {
      std::uint32_t x = input + 1;
      for (std::int32_t i : indices) x = x * 31 + static_cast<std::uint32_t>(i);
      return value(type, x);
    };
    return testing::node_values(m, {symbol, load}, true);
  }
};

// How far the parts are from the score, against the largest of them.
double difference(const ir::Module& before, const passes::ScoreForm& form, const Point& at) {
  const double dot = 4 * at.real(5);
  // The scale reads no score, so that any will do.
  const NodeId scale_root = before.root(Root::scale);
  const double scale = scale_root.valid() ? at.values(before, 0)[scale_root.value].f : double{kScale};
  const NodeId score_root = before.root(Root::score);
  const double expected =
      score_root.valid() ? at.values(before, dot * scale)[score_root.value].f : dot * scale;

  const std::vector<ir::Value> values = at.values(form.module, dot);
  const auto part = [&](NodeId id, double otherwise) { return id.valid() ? values[id.value].f : otherwise; };
  const double core = part(form.factor, 1) * values[form.module.root(Root::score).value].f,
               slope = part(form.slope, 0) * (std::int64_t{at.k} - at.q), shift = part(form.shift, 0);
  const double actual = core + slope + shift;
  if (std::isinf(expected) || std::isnan(expected))
    return std::isnan(expected) ? std::isnan(actual) ? 0 : INFINITY : expected == actual ? 0 : INFINITY;
  return std::fabs(actual - expected) /
         std::max({1.0, std::fabs(expected), std::fabs(core), std::fabs(slope), std::fabs(shift)});
}

void reassemble(const ir::Module& m, unsigned seed) {
  const passes::ScoreForm form = passes::score_form(m, kScale);
  REQUIRE(!ir::verify(form.module));
  const auto varies = ir::variance(form.module);
  for (NodeId id : {form.factor, form.slope})
    if (id.valid()) REQUIRE((varies[id.value] & ~(ir::kBatch | ir::kHead)) == 0);
  if (form.shift.valid()) REQUIRE((varies[form.shift.value] & (ir::kKey | ir::kScore)) == 0);
  for (unsigned i = 0; i < 12; ++i) {
    const Point at{static_cast<std::int32_t>(i * 5 % 23), static_cast<std::int32_t>((seed + i * 7) % 29),
                   seed + i};
    CAPTURE(at.q);
    CAPTURE(at.k);
    REQUIRE(difference(m, form, at) < 1e-5);
    if (form.factor.valid()) REQUIRE(at.values(form.module, 1)[form.factor.value].f > 0);
  }
}

}  // namespace

TEST_CASE("score form: the usual scores") {
  CHECK(parts("") == Parts{"score", "0.125"});
  CHECK(parts("scale = 1") == Parts{"score"});
  CHECK(parts("input t: float[heads]\n scale = t[h]") == Parts{"(mul.f score (t h))"});
  CHECK(parts("input t: float[heads]\n scale = exp(t[h])") == Parts{"score", "(exp.f (t h))"});
  CHECK(score("score - s[h] * (q - k)") == Parts{"score", "0.125", "(s h)"});
  CHECK(score("score + -s[h] * (q - k)") == Parts{"score", "0.125", "(s h)"});
  CHECK(score("score + 0.5 * s[h] * (k - q) / 2") ==
        Parts{"score", "0.125", "(div.f (mul.f (s h) 0.5) 2.0)"});
  CHECK(score("50 * tanh(score / 50)") == Parts{"(tanh.f (mul.f score 0.0024999999441206455))", "50.0"});
  CHECK(score("score * exp(s[h])") == Parts{"score", "(mul.f (exp.f (s h)) 0.125)"});
  CHECK(score("score / sqrt(head_dim)") == Parts{"score", "(div.f 0.125 (sqrt.f (float.i head_dim)))"});
  CHECK(score("score * -0.5") == Parts{"(mul.f score -0.0625)"});
  CHECK(score("score * s[h]") == Parts{"(mul.f score (mul.f (s h) 0.125))"});
  CHECK(score("score + u[q]") == Parts{"score", "0.125", "none", "(u q)"});
  CHECK(score("score + v[k]") == Parts{"(add.f (mul.f score 0.125) (v k))"});
  CHECK(score("u[q]") == Parts{"0.0", "none", "none", "(u q)"});
  CHECK(score("score - s[h] * abs(q - k)").slope == "none");
  CHECK(score("score - s[h] * abs(q - k)").factor == "none");
  CHECK(parts("input t: float[33]\n score = score + t[clamp(k - q, -16, 16) + 16]") ==
        Parts{"(add.f (mul.f score 0.125) (t (add.i (min.i (max.i (sub.i k q) -16) 16) 16)))"});
}

TEST_CASE("score form: slopes and what they leave to the row") {
  CHECK(score("score + s[h] * k") == Parts{"score", "0.125", "(s h)", "(mul.f (float.i q) (s h))"});
  CHECK(score("score - s[h] * (q - k + 1)") == Parts{"score", "0.125", "(s h)", "(neg.f (s h))"});
  CHECK(score("score + (k - q)") == Parts{"score", "0.125", "1.0"});
  CHECK(score("score - (s[h] * (q - k) - u[q])") == Parts{"score", "0.125", "(s h)", "(u q)"});
  CHECK(score("score + s[h] * (k - q) + (k - q)").slope == "(add.f 1.0 (s h))");
  // Steep is no matter where nothing else goes to the row.
  CHECK(score("score - 2 ** s[h] * (q - k)").slope == "(pow.f 2.0 (s h))");
  CHECK(score("score - 2 ** s[h] * k").slope == "none");
  // May wrap.
  CHECK(score("score - s[h] * (q - k + 2)").slope == "none");
  CHECK(score("score - s[h] * (2 * k - q)").slope == "none");
  // By the row, or by the key.
  CHECK(score("score - u[q] * (q - k)").slope == "none");
  CHECK(score("score - v[k] * (q - k)").slope == "none");
  // One axis: its coordinate is the position. Several: it is not.
  CHECK(parts("axis t\n score = score + (k.t - q.t)") == Parts{"score", "0.125", "1.0"});
  CHECK(parts("axis t\n axis x\n score = score + (k.t - q.t)").slope == "none");
  // The row in memory is not the position that `align = end` gives it.
  CHECK(parts("align = end\n score = score + (k - q)") == Parts{"score", "0.125", "1.0"});
  CHECK(parts("align = end\n score = score + (k - q.index)") ==
        Parts{"score", "0.125", "1.0", "(add.f (neg.f (float.i q.index)) (float.i q))"});
}

TEST_CASE("score form: what must stay in the core") {
  // A row that may be infinite or undefined.
  CHECK(score("score + log(u[q])").shift == "none");
  CHECK(score("score + 1 / u[q]").shift == "none");
  CHECK(score("score + u[q] / 3").shift == "(div.f (u q) 3.0)");
  // Not softmax.
  for (const char* normalize : {"sigmoid", "none"}) {
    const std::string first = fmt::format("normalize = {}\n", normalize);
    CHECK(parts(first) == Parts{"(mul.f score 0.125)"});
    CHECK(parts(first + kHeads + "score + u[q]") == Parts{"(add.f (mul.f score 0.125) (u q))"});
  }
  // Factors that leave fp32 together.
  CHECK(score("score * 1e-30 * 1e-30").factor == "none");
  // What is rounded or compared keeps its last bit.
  CHECK(score("score + int(k * 0.1 * 3)").core ==
        "(add.f (mul.f score 0.125) (float.i (int.f (mul.f (mul.f (float.i k) 0.10000000149011612) 3.0))))");
}

TEST_CASE("score form: sums of very many addends") {
  std::string text = "let x0 = score + k % 2\n";
  for (int i = 1; i <= 40; ++i) text += fmt::format(" let x{} = x{} + x{}\n", i, i - 1, i - 1);
  const ir::Module m = grid_keys(testing::compile_block(text + " score = x40 + x39"));
  CHECK(passes::score_form(m, kScale).module.size() < 1000);
}

TEST_CASE("score form: the parts of random sums come to the score") {
  constexpr const char* addends[] = {"score",
                                     "score * s[h]",
                                     "score / 3",
                                     "3 * tanh(score / 3)",
                                     "s[h] * (q - k)",
                                     "(k - q) / 3 * s[h]",
                                     "u[q]",
                                     "v[k]",
                                     "s[h] * k",
                                     "-(s[h] * (q - k) + u[q])",
                                     "s[h] * 2 / 7",
                                     "u[q] * (k - q + 1)",
                                     "exp(u[q])",
                                     "s[h] * (x[q.index] - k)",
                                     "abs(q - k) * s[h]",
                                     "-score * exp2(s[h])",
                                     "2 * (q.index - k)",
                                     "(score - (q - k)) * 0.25",
                                     "score * u[q]",
                                     "min(score, v[k]) / s[h]"};
  std::mt19937 random(7);
  for (unsigned seed = 0; seed < 250; ++seed) {
    std::string body = seed % 3 == 0 ? "axis t\n" : seed % 3 == 1 ? "align = end\n" : "";
    if (random() % 3 == 0) body += "scale = 0.3\n";
    body += fmt::format("input x: int[{}]\n", seed % 3 == 0 ? "len(t)" : "tokens");
    body += kHeads;
    if (seed % 3 == 0)
      for (const char* extent : {"tokens", "keys"})
        body.replace(body.find(extent), std::string(extent).size(), "len(t)");
    for (unsigned n = 0; n <= random() % 4; ++n)
      body += fmt::format(" {} {}",
                          n == 0              ? ""
                          : random() % 2 == 0 ? "+"
                                              : "-",
                          addends[random() % std::size(addends)]);
    CAPTURE(body);
    reassemble(grid_keys(testing::compile_block(body)), seed);
  }
}

TEST_CASE("score form: the parts of random specs come to the score") {
  int scores = 0, split = 0;
  for (unsigned seed = 0; seed < 400; ++seed) {
    const testing::RandomSpec spec = testing::random_spec(seed, true);
    CAPTURE(spec.text);
    const auto compiled = testing::compile_text(spec.text);
    if (compiled.variants.size() != 1) continue;
    const ir::Module& m = compiled.variants[0].specialized.grid.module;
    if (!m.root(Root::score).valid()) continue;
    reassemble(m, seed);
    const passes::ScoreForm form = passes::score_form(m, kScale);
    ++scores;
    split += form.factor.valid() || form.slope.valid() || form.shift.valid();
  }
  CHECK(scores > 200);
  CHECK(split > 20);
}

TEST_CASE("a softcap is a polynomial of small scores") {
  const auto gain = [](const std::string& body) {
    return passes::tanh_gain(passes::score_form(grid_keys(testing::compile_block(body)), kScale));
  };
  for (const double cap : {0.5, 30.0, 50.0, 1e4}) {
    CAPTURE(cap);
    const auto g = gain(fmt::format("score = {:.1f} * tanh(score / {:.1f})", cap, cap));
    REQUIRE(g);
    CHECK(g->limit * kScale / cap == doctest::Approx(0.35));
    double largest = 0, largest_derivative = 0;
    for (int i = 1; i <= 1000; ++i) {
      const double s = g->limit * (i / 1000.0), square = s * s;
      const double exponent =
          s * (g->terms[0] + square * (g->terms[1] + square * (g->terms[2] + square * g->terms[3])));
      const double exact = std::tanh(s * kScale / cap) * cap / std::log(2.0);
      largest = std::max(largest, std::fabs(exponent - exact) / exact);
      const double derivative = g->rise * (1 - std::pow(exponent / g->bound, 2)),
                   cosh = std::cosh(s * kScale / cap), exact_derivative = kScale / (cosh * cosh);
      largest_derivative =
          std::max(largest_derivative, std::fabs(derivative - exact_derivative) / exact_derivative);
    }
    CHECK(largest < 0x1p-23);  // the fit, and the rounding of its terms
    CHECK(largest_derivative < 0x1p-23);
  }
  CHECK(!gain(""));
  CHECK(!gain("score = -30.0 * tanh(score / 30.0)"));
  CHECK(!gain("score = 30.0 * tanh(score / 30.0) + float(k)"));
  CHECK(!gain("score = 30.0 * tanh(score / 30.0 + 1.0)"));
  CHECK(!gain("input s: float[heads]\n score = s[h] * tanh(score / s[h])"));
  CHECK(!gain("score = 30.0 * tanh_approx(score / 30.0)"));
  CHECK(!gain("score = float(int(score) + k)"));
}

}  // namespace vicinal
