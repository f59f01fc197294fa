// The interpreter, through the public API, against plain loops written from the language's definition.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "tests/support/plain_attention.h"

namespace vicinal::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::string block(const std::string& statements) {
  return "attention t {\n" + statements + "\n}\n";
}

ProblemShape sequence(std::int64_t queries, std::int64_t keys) {
  ProblemShape s;
  s.queries = {queries};
  s.keys = {keys};
  return s;
}

struct Row {
  const char* text;
  PlainSpec meaning;
};

PlainSpec masked(std::function<bool(const PlainPair&)> mask) {
  PlainSpec s;
  s.mask = std::move(mask);
  return s;
}
PlainSpec scored(std::function<double(const PlainPair&, double)> score) {
  PlainSpec s;
  s.score = std::move(score);
  return s;
}

// Float literals of a spec are fp32.
constexpr double kTenth = static_cast<double>(0.1f);

std::vector<Row> sequence_rows() {
  std::vector<Row> rows = {
      {"", {}},
      {"mask = k <= q", masked([](const PlainPair& p) { return p.k <= p.q; })},
      {"param window: int = 5\nmask = 0 <= q - k < window",
       masked([](const PlainPair& p) { return p.q >= p.k && p.q - p.k < 5; })},
      {"score = score - 2 ** -(h + 1) * abs(q - k)", scored([](const PlainPair& p, double s) {
         return s - std::exp2(-static_cast<double>(p.h) - 1) * std::fabs(p.q - p.k);
       })},
      {"param cap: float = 2.5\nscore = cap * tanh(score / cap)",
       scored([](const PlainPair&, double s) { return 2.5 * std::tanh(s / 2.5); })},
      {"score = -inf if (q + k) % 3 == 0 else score",
       scored([](const PlainPair& p, double s) { return (p.q + p.k) % 3 == 0 ? -kInfinity : s; })},
      {"score = score + 0.1 * kv_h * b",
       scored([](const PlainPair& p, double s) { return s + kTenth * static_cast<double>(p.kv_h * p.b); })},
      {"score = score if k % 2 == 0 else max(score, 0.5)",
       scored([](const PlainPair& p, double s) { return p.k % 2 == 0 ? s : std::max(s, 0.5); })},
      {"mask = (q // 4 == k // 4) != (q & 1 == 0)",
       masked([](const PlainPair& p) { return (p.q / 4 == p.k / 4) != (p.q % 2 == 0); })},
      {"mask = q % 5 != 3 and (k - q) // 3 % 2 == 0", masked([](const PlainPair& p) {
         return p.q % 5 != 3 &&
                static_cast<std::int64_t>(std::floor(static_cast<double>(p.k - p.q) / 3)) % 2 == 0;
       })},
      {"mask = any(i in 1..4: q - k == i * i) or q == k", masked([](const PlainPair& p) {
         return p.q - p.k == 1 || p.q - p.k == 4 || p.q - p.k == 9 || p.q == p.k;
       })},
      {"score = score + sum(i in 0..5: 0.5 ** i * ((q + i) % 3 - k % 2))",
       scored([](const PlainPair& p, double s) {
         for (int i = 0; i < 5; ++i) s += std::pow(0.5, i) * static_cast<double>((p.q + i) % 3 - p.k % 2);
         return s;
       })},
      {"score = score + sum(i in 3..3: 1.0)\nmask = not any(i in 3..3: true)", {}},
      {"mask = q >= 4", masked([](const PlainPair& p) { return p.q >= 4; })},
      {"mask = false", masked([](const PlainPair&) { return false; })},
      {"score = -inf", scored([](const PlainPair&, double) { return -kInfinity; })},
      {"score = score + log(tokens) - log(keys) + heads / kv_heads + batch",
       scored([](const PlainPair&, double s) { return s + 2 + 2; })},
  };
  const auto add = [&](const char* text, auto change) {
    rows.push_back({text, {}});
    change(rows.back().meaning);
  };
  add("query = l2norm", [](PlainSpec& s) { s.query_l2norm = true; });
  add("key = l2norm\nscale = 4",
      [](PlainSpec& s) { s.key_l2norm = true, s.scale = [](auto, auto) { return 4.0; }; });
  add("query = l2norm\nkey = l2norm\nscale = -1.5 * (h + 1)", [](PlainSpec& s) {
    s.query_l2norm = s.key_l2norm = true;
    s.scale = [](auto, std::int64_t h) { return -1.5 * static_cast<double>(h + 1); };
  });
  add("scale = 0", [](PlainSpec& s) { s.scale = [](auto, auto) { return 0.0; }; });
  add("normalize = sigmoid\nscore = score - log(keys)\nmask = k <= q", [](PlainSpec& s) {
    s.normalize = PlainSpec::Normalize::sigmoid;
    s.score = [](const PlainPair&, double x) { return x - std::log(13.0); };
    s.mask = [](const PlainPair& p) { return p.k <= p.q; };
  });
  add("normalize = none\nmask = k != q", [](PlainSpec& s) {
    s.normalize = PlainSpec::Normalize::none;
    s.mask = [](const PlainPair& p) { return p.k != p.q; };
  });
  add("sink = -inf if h == 1 else 0.5 * h\nmask = k < q", [](PlainSpec& s) {
    s.sink = [](auto, std::int64_t h) { return h == 1 ? -kInfinity : 0.5 * static_cast<double>(h); };
    s.mask = [](const PlainPair& p) { return p.k < p.q; };
  });
  add("output = out * sigmoid(lse) + 0.25 * (q - b)", [](PlainSpec& s) {
    s.output = [](const PlainPair& p, double out, double lse) {
      return out / (1 + std::exp(-lse)) + 0.25 * static_cast<double>(p.q - p.b);
    };
  });
  add("normalize = none\noutput = out / keys", [](PlainSpec& s) {
    s.normalize = PlainSpec::Normalize::none;
    s.output = [](const PlainPair&, double out, double) { return out / 13; };
  });
  return rows;
}

}  // namespace

TEST_CASE("interpreter: sequences, every layout") {
  for (const Row& row : sequence_rows()) {
    for (const Layout layout : {Layout::bhnd, Layout::bnhd, Layout::padded, Layout::reversed}) {
      ProblemShape s;
      s.layout = layout;
      if (row.meaning.normalize != PlainSpec::Normalize::softmax) s.lse = false;
      check_against_plain(block(row.text), row.meaning, make_problem(s));
    }
  }
}

TEST_CASE("interpreter: cross attention, aligned at the start and at the end") {
  for (const auto& [queries, keys] : {std::pair{5, 17}, {17, 5}, {1, 9}, {9, 1}}) {
    PlainSpec causal = masked([](const PlainPair& p) { return p.k <= p.q; });
    check_against_plain(block("mask = k <= q"), causal, make_problem(sequence(queries, keys)));
    causal.align_end = true;
    check_against_plain(block("align = end\nmask = k <= q"), causal, make_problem(sequence(queries, keys)));
    PlainSpec index = masked([](const PlainPair& p) { return (p.q_index + p.k) % 2 == 0 || p.q == p.k; });
    index.align_end = true;
    check_against_plain(block("align = end\nmask = (q.index + k) % 2 == 0 or q == k"), index,
                        make_problem(sequence(queries, keys)));
  }
}

TEST_CASE("interpreter: element types, head and value dims, groups of heads") {
  const PlainSpec meaning = masked([](const PlainPair& p) { return p.k <= p.q; });
  for (const DType dtype : {DType::f16, DType::bf16, DType::f32, DType::f64}) {
    for (const auto& [head_dim, value_dim] : {std::pair{8, 8}, {8, 24}, {40, 16}, {256, 8}}) {
      ProblemShape s;
      s.dtype = dtype, s.head_dim = head_dim, s.value_dim = value_dim;
      check_against_plain(block("mask = k <= q"), meaning, make_problem(s));
    }
  }
  for (const auto& [heads, kv_heads] : {std::pair{6, 6}, {6, 3}, {6, 2}, {6, 1}, {1, 1}}) {
    ProblemShape s;
    s.heads = heads, s.kv_heads = kv_heads;
    check_against_plain(block("mask = k <= q"), meaning, make_problem(s));
  }
}

TEST_CASE("interpreter: zero extents") {
  const PlainSpec plain;
  for (const auto& [queries, keys] : {std::pair{0, 7}, {7, 0}, {0, 0}})
    check_against_plain(block(""), plain, make_problem(sequence(queries, keys)));
  ProblemShape s;
  s.batch = 0;
  check_against_plain(block(""), plain, make_problem(s));
  s.batch = 2, s.heads = s.kv_heads = 0;
  check_against_plain(block(""), plain, make_problem(s));
  // No key at all: O is 0, the LSE is that of the sink.
  PlainSpec sink;
  sink.sink = [](auto, auto) { return 1.5; };
  check_against_plain(block("sink = 1.5"), sink, make_problem(sequence(3, 0)));
  ProblemShape grid;
  grid.queries = grid.keys = {0, 5};
  PlainSpec axes;
  axes.axes = {{0, 0}, {0, 3}};
  check_against_plain(block("axis y\naxis x { window = 3 }"), axes, make_problem(grid));
}

TEST_CASE("interpreter: NaN and Inf reach those who keep them and no others") {
  const PlainSpec causal = masked([](const PlainPair& p) { return p.k <= p.q; });
  for (const double poison : {kNaN, kInfinity, -kInfinity}) {
    Problem keys = make_problem({});
    keys.k.set({0, 1, 6, 3}, poison);
    check_against_plain(block("mask = k <= q"), causal, keys);
    Problem values = make_problem({});
    values.v.set({1, 0, 4, 2}, poison);
    values.v.set({0, 0, 9, 7}, poison);
    check_against_plain(block("mask = k <= q"), causal, values);
    Problem queries = make_problem({});
    queries.q.set({1, 2, 5, 0}, poison);
    check_against_plain(block("mask = k <= q"), causal, queries);
  }
  // Nobody keeps the key: not a trace of it.
  Problem p = make_problem({});
  for (std::int64_t c = 0; c < 8; ++c)
    for (HostTensor* t : {&p.k, &p.v}) t->set({0, 0, 3, c}, kNaN), t->set({1, 1, 3, c}, kInfinity);
  interpret(block("mask = k != 3"), p);
  p.out.each([&](const Index& i) { CHECK(std::isfinite(p.out.at(i))); });
  interpret(block("score = score if k != 3 else -inf"), p);
  p.out.each([&](const Index& i) { CHECK(std::isfinite(p.out.at(i))); });
}

TEST_CASE("interpreter: context keys") {
  for (const std::int64_t context : {0, 1, 6}) {
    ProblemShape s;
    s.queries = s.keys = {4, 5};
    s.context = context;
    PlainSpec m;
    m.axes = {{0, 3, 1, 1, true}, {0, 3}};
    m.score = [](const PlainPair& p, double x) {
      return p.context ? x - 0.5 * static_cast<double>(p.k)
                       : x - 0.25 * static_cast<double>(p.q_at[0] - p.k_at[0]);
    };
    m.mask = [](const PlainPair& p) { return p.context ? (p.k + p.q_at[1]) % 3 != 1 : p.k_at[1] != 2; };
    check_against_plain(block("axis t { window = 3, causal }\naxis x { window = 3 }\ncontext\n"
                              "score = score - 0.5 * k if k.context else score - 0.25 * (q.t - k.t)\n"
                              "mask = (k + q.x) % 3 != 1 if k.context else k.x != 2"),
                        m, make_problem(s));
    // Of a sequence; `keys` leaves context keys out.
    ProblemShape flat;
    flat.context = context;
    PlainSpec causal;
    causal.mask = [](const PlainPair& p) { return p.context ? p.k != 1 : p.k <= p.q; };
    causal.score = [&](const PlainPair&, double x) {
      return x + 13 * 0.125 + 0.25 * static_cast<double>(context);
    };
    check_against_plain(
        block(
            "context\nmask = k != 1 if k.context else k <= q\nscore = score + keys * 0.125 + context * 0.25"),
        causal, make_problem(flat));
  }
  // A tensor over the context is indexed where the key is known to be a context key.
  ProblemShape s;
  s.context = 5;
  Problem p = make_problem(s);
  HostTensor keep = HostTensor(DType::boolean, {2, 5}).fill([](const Index& i) { return (i[0] + i[1]) % 2; });
  p.inputs["keep"] = keep;
  check_against_plain(block("context\ninput keep: bool[batch, context]\nmask = not k.context or keep[b, k]"),
                      masked([&](const PlainPair& x) {
                        return !x.context || keep.at({x.b, x.k}) != 0;
                      }),
                      p);
}

TEST_CASE("interpreter: lets that index with k, used where it is known what k counts") {
  for (const std::int64_t context : {5, 20}) {  // fewer than the keys, and more
    ProblemShape s;
    s.context = context;
    Problem p = make_problem(s);
    const auto number = [](const Index& i) { return 0.25 * static_cast<double>(i[0] % 7); };
    const HostTensor& prompt = p.inputs["prompt"] = HostTensor(DType::f32, {context}).fill(number);
    const HostTensor& bias = p.inputs["bias"] = HostTensor(DType::f32, {13}).fill(number);
    PlainSpec plain;
    plain.score = [&](const PlainPair& x, double score) {
      return score + (x.context ? prompt.at({x.k}) : bias.at({x.k}));
    };
    plain.mask = [&](const PlainPair& x) { return !x.context || prompt.at({x.k}) > 0.5; };
    const std::string head = "context\ninput prompt: float[context]\ninput bias: float[keys]\n";
    const std::string direct =
        "score = score + (prompt[k] if k.context else bias[k])\n"
        "mask = not k.context or prompt[k] > 0.5";
    const std::string by_lets =
        "let own = prompt[k]\nlet other = bias[k]\nlet kept = own > 0.5\n"
        "score = score + (own if k.context else other)\nmask = not k.context or kept";
    for (const std::string& body : {direct, by_lets}) check_against_plain(block(head + body), plain, p);
  }
}

TEST_CASE("interpreter: a variant with context keys, given none") {
  check_against_plain(block("context\nmask = k.context or k <= q"),
                      masked([](const PlainPair& p) { return p.k <= p.q; }), make_problem({}));
}

TEST_CASE("interpreter: captured inputs of every element type and rank") {
  for (const auto& row : kDTypes) {
    const char* type = is_floating(row.dtype) ? "float" : is_integer(row.dtype) ? "int" : "bool";
    for (int rank = 0; rank <= 5; ++rank) {
      for (const bool strided : {false, true}) {
        const Index extents = {2, 4, 13, 13, 3};
        const char* dims[] = {"batch", "heads", "tokens", "keys", "3"};
        const char* indices[] = {"b", "h", "q", "k", "(q + k) % 3"};
        std::string declared, index;
        Index shape(extents.begin(), extents.begin() + rank), strides;
        for (int i = 0; i < rank; ++i) {
          declared += fmt::format("{}{}", i ? ", " : "", dims[i]);
          index += fmt::format("{}{}", i ? ", " : "", indices[i]);
        }
        if (rank != 0) declared = "[" + declared + "]", index = "[" + index + "]";
        std::int64_t step = 2;
        for (std::size_t i = 0; strided && i < shape.size(); ++i)
          strides.push_back(i % 2 ? -step : step), step = step * shape[i] + 1;
        std::mt19937 random(static_cast<unsigned>(rank));
        HostTensor x =
            HostTensor(row.dtype, shape, strides)
                .fill_random(
                    random,
                    row.dtype == DType::u8 || row.dtype == DType::u16 || row.dtype == DType::boolean ? 0 : -2,
                    2);
        const auto value = [&, rank](const PlainPair& p) {
          const Index all = {p.b, p.h, p.q, p.k, (p.q + p.k) % 3};
          return x.at(Index(all.begin(), all.begin() + rank));
        };
        Problem p = make_problem({});
        p.inputs["x"] = x;
        CompileOptions options;
        options.input_dtypes["x"] = row.dtype;
        const std::string load = fmt::format("x{}", index);
        const std::string score = row.dtype == DType::boolean
                                      ? fmt::format("score + (0.5 if {} else 0.0)", load)
                                      : fmt::format("score + 0.5 * {}", load);
        check_against_plain(block(fmt::format("input x: {}{}\nscore = {}", type, declared, score)),
                            scored([&](const PlainPair& q, double s) { return s + 0.5 * value(q); }), p,
                            options);
      }
    }
  }
}

TEST_CASE("interpreter: indices outside an input take its nearest element") {
  Problem p = make_problem({});
  std::mt19937 random(3);
  const HostTensor table = HostTensor(DType::f32, {7}).fill_random(random);
  p.inputs["table"] = table;
  p.inputs["at"] = HostTensor(DType::i32, {13}).fill_random(random, -20, 20);
  const HostTensor at = p.inputs["at"];
  const auto nearest = [&](std::int64_t i) {
    return table.at({std::min<std::int64_t>(std::max<std::int64_t>(i, 0), 6)});
  };
  check_against_plain(block("input table: float[n]\ninput at: int[keys]\nscore = score + table[at[k]] * n"),
                      scored([&](const PlainPair& x, double s) {
                        return s + nearest(static_cast<std::int64_t>(at.at({x.k}))) * 7;
                      }),
                      p);
}

TEST_CASE("interpreter: named extents, dot, and functions") {
  Problem p = make_problem({});
  std::mt19937 random(5);
  p.inputs["offsets"] = HostTensor(DType::i32, {4}).fill([](const Index& i) { return i[0] * 5; });
  check_against_plain(block("input offsets: int[docs + 1]\nmask = k >= offsets[clamp(q // 5, 0, docs)] and k "
                            "< offsets[clamp(q // 5 + 1, 0, docs)]"),
                      masked([](const PlainPair& x) { return x.k / 5 == x.q / 5; }), p);

  p.inputs.clear();
  const HostTensor x = HostTensor(DType::f16, {2, 4, 13, 6}).fill_random(random),
                   y = HostTensor(DType::bf16, {2, 13, 6}).fill_random(random);
  p.inputs["x"] = x;
  p.inputs["y"] = y;
  CompileOptions options;
  options.input_dtypes = {{"x", DType::f16}, {"y", DType::bf16}};
  check_against_plain(block("input x: float[batch, heads, tokens, r]\ninput y: float[batch, keys, r]\nscore "
                            "= score + dot(x[b, h, q, :], y[b, k, :])"),
                      scored([&](const PlainPair& c, double s) {
                        for (std::int64_t i = 0; i < 6; ++i)
                          s += x.at({c.b, c.h, c.q, i}) * y.at({c.b, c.k, i});
                        return s;
                      }),
                      p, options);

  p.inputs.clear();
  const HostTensor document =
      HostTensor(DType::i64, {2, 13}).fill([](const Index& i) { return (i[1] + i[0]) / 4; });
  p.inputs["document"] = document;
  options.input_dtypes = {{"document", DType::i64}};
  check_against_plain(
      "fn causal(i: int, j: int) -> bool = j <= i\n"
      "fn inside(f: fn(int, int) -> bool, d: int[_, _], b: int, i: int, j: int) -> bool = d[b, i] == d[b, j] "
      "and f(i, j)\n" +
          block("input document: int[batch, tokens]\nmask = inside(causal, document, b, q, k)"),
      masked([&](const PlainPair& c) {
        return c.k <= c.q && document.at({c.b, c.q}) == document.at({c.b, c.k});
      }),
      p, options);
}

TEST_CASE("interpreter: integers wrap, and every operation is total") {
  struct Case {
    std::string expression;
    std::int64_t value;
  };
  const std::int64_t lowest = std::numeric_limits<std::int32_t>::min(),
                     highest = std::numeric_limits<std::int32_t>::max();
  const Case cases[] = {
      {"max + 1", lowest},
      {"min - 1", highest},
      {"-min", lowest},
      {"abs(min)", lowest},
      {"min // -1", lowest},
      {"min % -1", 0},
      {"7 // zero", 0},
      {"7 % zero", 0},
      {"-7 // 2", -4},
      {"-7 % 2", 1},
      {"7 // -2", -4},
      {"7 % -2", -1},
      {"1 << 31", lowest},
      {"1 << 32", 0},
      {"1 << -1", 0},
      {"min >> 40", -1},
      {"max >> 40", 0},
      {"-5 >> 1", -3},
      {"~5", -6},
      {"6 & 3 | 8 ^ 1", 11},
      {"65536 * 65536", 0},
      {"65537 * 65537", 131073},
      {"int(2.9)", 2},
      {"int(-2.9)", -2},
      {"int(3e9)", highest},
      {"int(-3e9)", lowest},
      {"int(inf - inf)", 0},
      {"sign(min)", -1},
      {"int(round(2.5))", 2},
      {"int(round(3.5))", 4},
      {"int(floor(-0.5))", -1},
      {"int(ceil(-0.5))", 0},
      {"2 + 3 * 4", 14},
      {"int(2 ** 3 ** 2)", 512},
      {"int(-2 ** 2)", -4},
      {"10 - 4 - 3", 3},
      {"1 << 2 + 1", 8},
      {"7 & 3 + 1", 4},
      {"clamp(5, 7, 3)", 3},
      {"min(3, 1, 2)", 1},
  };
  for (const Case& c : cases) {
    CAPTURE(c.expression);
    // The values are dynamic, so that nothing is folded before the interpreter sees it.
    std::string expression = c.expression;
    const auto replace = [&](const std::string& from, const std::string& to) {
      for (std::size_t at = 0; (at = expression.find(from, at)) != std::string::npos; at += to.size())
        if (const char next = expression[at + from.size()]; next != '(')
          expression.replace(at, from.size(), to);
    };
    replace("max", "largest"), replace("min", "smallest");
    Problem p = make_problem(sequence(2, 2));
    CompileOptions options;
    options.dynamic = {"largest", "smallest", "zero"};
    p.dynamic = {{"largest", highest}, {"smallest", lowest}, {"zero", std::int64_t{0}}};
    check_against_plain(
        block(fmt::format("param largest: int = 0\nparam smallest: int = 0\nparam zero: int = 1\n"
                          "let x = ({}) + 0 * (largest + smallest + zero)\nmask = x == {} and k >= 0 * zero",
                          expression, c.value == lowest ? "-2147483648" : fmt::to_string(c.value))),
        {}, p, options);
  }
}

TEST_CASE("interpreter: masks are fp32, operation by operation") {
  struct Case {
    const char* text;
    bool in_double;          // what wider arithmetic would say
    bool (*exact)(float x);  // x is 0 when the mask runs
  };
  const Case cases[] = {
      {"x + 1.0 + 16777216.0 == 16777216.0", false,
       [](float x) { return (x + 1.0f) + 16777216.0f == 16777216.0f; }},
      {"x + 0.1 + 0.2 == 0.3", false, [](float x) { return (x + 0.1f) + 0.2f == 0.3f; }},
      {"(x + 1.0) / 10.0 * 10.0 == 1.0 + x", true,
       [](float x) { return (x + 1.0f) / 10.0f * 10.0f == 1.0f + x; }},
      {"sqrt(x + 3.0) * sqrt(x + 3.0) < 3.0", true,
       [](float x) { return std::sqrt(x + 3.0f) * std::sqrt(x + 3.0f) < 3.0f; }},
      {"x + 16777217 == 16777216.0", false,
       [](float x) { return x + static_cast<float>(16777217) == 16777216.0f; }},
      {"floor((x + 0.7) * 10.0) == 7.0", false,
       [](float x) { return std::floor((x + 0.7f) * 10.0f) == 7.0f; }},
  };
  int different = 0;
  for (const Case& c : cases) {
    Problem p = make_problem(sequence(2, 3));
    CompileOptions options;
    options.dynamic = {"x"};  // dynamic, so that nothing is folded
    p.dynamic = {{"x", 0.0}};
    check_against_plain(block(fmt::format("param x: float = 1.0\nmask = {}", c.text)),
                        masked([&](const PlainPair&) { return c.exact(0); }), p, options);
    different += c.exact(0) != c.in_double;
  }
  CHECK(different >= 3);  // else this test could not tell fp32 from double
}

TEST_CASE("interpreter: params baked and dynamic") {
  const std::string text = block(
      "param window: int = 3\nparam gain: float = 1.5\nparam both: bool = false\n"
      "score = score * gain\nmask = abs(q - k) < window if both else 0 <= q - k < window");
  const auto meaning = [](std::int64_t window, double gain, bool both) {
    PlainSpec s;
    s.score = [=](const PlainPair&, double x) { return x * gain; };
    s.mask = [=](const PlainPair& p) {
      return both ? std::abs(p.q - p.k) < window : p.q >= p.k && p.q - p.k < window;
    };
    return s;
  };
  check_against_plain(text, meaning(3, 1.5, false), make_problem({}));
  CompileOptions baked;
  baked.params = {{"window", std::int64_t{6}}, {"gain", 0.75}, {"both", true}};
  check_against_plain(text, meaning(6, 0.75, true), make_problem({}), baked);
  CompileOptions dynamic;
  dynamic.dynamic = {"window", "gain", "both"};
  Problem p = make_problem({});
  check_against_plain(text, meaning(3, 1.5, false), p, dynamic);  // their defaults
  p.dynamic = {{"window", std::int64_t{6}}, {"gain", 0.75}, {"both", true}};
  check_against_plain(text, meaning(6, 0.75, true), p, dynamic);
}

TEST_CASE("interpreter: what optimization removes need not be there") {
  // The input is only read where a param, known when compiling, says so.
  const std::string text = block(
      "param biased: bool = false\ninput bias: float[heads, tokens]\nscore = score + (bias[h, q] if biased "
      "else 0.0)");
  check_against_plain(text, {}, make_problem({}));
  CompileOptions options;
  options.params = {{"biased", true}};
  Problem p = make_problem({});
  std::mt19937 random(2);
  const HostTensor bias = HostTensor(DType::f32, {4, 13}).fill_random(random);
  p.inputs["bias"] = bias;
  check_against_plain(text, scored([&](const PlainPair& x, double s) {
                        return s + bias.at({x.h, x.q});
                      }),
                      p, options);
}

}  // namespace vicinal::testing
