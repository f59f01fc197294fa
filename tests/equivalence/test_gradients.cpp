// Gradients of the interpreter: on every variant of the gallery against finite differences of its own forward
// pass, and where differences say nothing against what the language promises.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "runtime/binding/differentials.h"
#include "runtime/cpu/backward.h"
#include "runtime/kernel_impl.h"
#include "tests/support/gallery.h"
#include "tests/support/gradient_check.h"

namespace vicinal::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::string block(const std::string& statements) {
  return "attention t {\n" + statements + "\n}\n";
}

Kernel kernel_of(const std::string& statements, const ProblemShape& shape = {}) {
  CompileOptions options;
  options.head_dim = shape.head_dim;
  options.value_dim = shape.value_dim;
  return compile_for_gradients(Spec::from_string(block(statements)).value(), options).value();
}

void check(const Kernel& kernel, GradientCase& c, const std::string& name) {
  CAPTURE(name);
  const GradientErrors errors = compare_gradients(kernel, c, 1000);
  CHECK(errors.compared > 0);
  CHECK_MESSAGE(errors.worst <= kGradientTolerance, errors.where);
}

// A case whose gradients are there.
GradientCase computed(const Kernel& kernel, Problem problem, unsigned seed = 7) {
  std::mt19937 random(seed);
  GradientCase c = gradient_case(kernel, std::move(problem), random);
  kernel.backward(c.problem.arguments(), c.given(), c.wanted()).value();
  return c;
}

bool all_zero(const HostTensor& t) {
  bool zero = true;
  t.each([&](const Index& i) { zero = zero && t.at(i) == 0; });
  return zero;
}
bool all_finite(const HostTensor& t) {
  bool finite = true;
  t.each([&](const Index& i) { finite = finite && std::isfinite(t.at(i)); });
  return finite;
}

}  // namespace

TEST_CASE("gradients: every variant of the gallery agrees with finite differences") {
  std::int64_t variants = 0, captured = 0;
  double worst = 0;
  for (const GalleryBlock& block : learnable_gallery()) {
    CAPTURE(block.name);
    const Result<Kernel> kernel = compile_for_gradients(block.spec);
    REQUIRE_MESSAGE(kernel.has_value(), (kernel ? "" : kernel.error().message));
    std::mt19937 random(static_cast<unsigned>(variants + 1));
    std::optional<GradientCase> c = gradient_case(*kernel, random, 7, 50);
    REQUIRE_MESSAGE(c.has_value(), "no problem that keeps away from kinks");
    const GradientErrors errors = compare_gradients(*kernel, *c, 24);
    CHECK_MESSAGE(errors.worst <= kGradientTolerance, errors.where);
    ++variants;
    worst = std::max(worst, errors.worst);
    captured += static_cast<std::int64_t>(c->inputs.size() + c->params.size());
  }
  MESSAGE(variants, " variants, ", captured, " learnable inputs and params; largest relative error ", worst);
  CHECK(variants > 100);
  CHECK(captured > 50);
}

TEST_CASE("gradients: every normalization, norm, group and layout") {
  for (const char* normalize : {"", "normalize = sigmoid\n", "normalize = none\n"})
    for (const char* norms : {"", "query = l2norm\n", "key = l2norm\n", "query = l2norm\nkey = l2norm\n"})
      for (const auto& [heads, kv_heads] : {std::pair{4, 4}, {4, 2}, {3, 1}}) {
        ProblemShape s;
        s.batch = 2, s.heads = heads, s.kv_heads = kv_heads, s.value_dim = 16;
        s.queries = {5}, s.keys = {6};
        s.layout = heads == kv_heads ? Layout::bnhd : kv_heads == 2 ? Layout::reversed : Layout::padded;
        s.lse = *normalize == 0;
        const Kernel kernel =
            kernel_of(fmt::format("{}{}param gain: float = 1.5 learnable\nscale = gain / 2\nmask = k <= q",
                                  normalize, norms),
                      s);
        std::mt19937 random(11);
        GradientCase c = gradient_case(kernel, make_problem(s), random);
        check(kernel, c, fmt::format("{}{}{}/{}", normalize, norms, heads, kv_heads));
      }
}

TEST_CASE("gradients: sinks, outputs and the LSE") {
  for (const char* text :
       {"input s: float[heads] learnable\nsink = s[h]",
        "input s: float[heads] learnable\nsink = 2 * s[h] * s[h]\nmask = k < q - 1",
        "input s: float[heads] learnable\noutput = out * sigmoid(lse - s[h])\nmask = k <= q",
        "param a: float = 0.5 learnable\noutput = tanh(out * lse) + a * lse * q",
        "input s: float[batch, tokens] learnable\noutput = out * s[b, q]\nsink = 0.25"}) {
    const Kernel kernel = kernel_of(text);
    Problem problem = make_problem({});
    std::mt19937 random(3);
    if (std::string_view(text).find("s: float[heads]") != std::string_view::npos)
      problem.inputs["s"] = HostTensor(DType::f64, {4}).fill_random(random);
    if (std::string_view(text).find("s: float[batch") != std::string_view::npos)
      problem.inputs["s"] = HostTensor(DType::f64, {2, 13}).fill_random(random);
    GradientCase c = gradient_case(kernel, std::move(problem), random);
    check(kernel, c, text);
  }
}

TEST_CASE("gradients: rows that keep nothing give zeros, save the sink's through the LSE") {
  const Kernel plain = kernel_of("mask = q >= 4");
  const GradientCase c = computed(plain, make_problem({}));
  c.q.each([&](const Index& i) { CHECK((i[2] >= 4 || c.q.at(i) == 0)); });
  CHECK(all_finite(c.k));
  const GradientCase nothing = computed(kernel_of("mask = false"), make_problem({}));
  for (const HostTensor* t : {&nothing.q, &nothing.k, &nothing.v}) CHECK(all_zero(*t));

  Problem problem = make_problem({});
  problem.inputs["s"] = HostTensor(DType::f64, {4}).fill(0.5);
  const GradientCase sink =
      computed(kernel_of("input s: float[heads] learnable\nsink = s[h]\nmask = false"), problem);
  for (std::int64_t h = 0; h < 4; ++h) {
    double wanted = 0;  // the LSE is the sink
    for (std::int64_t b = 0; b < 2; ++b)
      for (std::int64_t t = 0; t < 13; ++t) wanted += sink.d_lse.at({b, h, t});
    CHECK(sink.inputs.at("s").at({h}) == doctest::Approx(wanted).epsilon(1e-12));
  }
  CHECK(all_zero(sink.q));
  // A sink that is infinite leaves nothing to the keys.
  const GradientCase all = computed(kernel_of("sink = inf"), make_problem({}));
  for (const HostTensor* t : {&all.q, &all.k, &all.v}) CHECK(all_zero(*t));
}

TEST_CASE("gradients: what no query keeps leaves no trace, NaN or infinite as it may be") {
  const GradientCase clean = computed(kernel_of("mask = k != 3 and k <= q"), make_problem({}));
  for (const double poison : {kNaN, kInfinity, -kInfinity}) {
    Problem problem = make_problem({});
    problem.k.each([&](const Index& i) {
      if (i[2] == 3) problem.k.set(i, poison), problem.v.set(i, poison);
    });
    const GradientCase c = computed(kernel_of("mask = k != 3 and k <= q"), problem);
    for (const auto& [x, y] : {std::pair(&c.q, &clean.q), {&c.k, &clean.k}, {&c.v, &clean.v}})
      x->each([&](const Index& i) { CHECK(x->at(i) == y->at(i)); });
    CHECK(c.k.at({0, 0, 3, 0}) == 0);
  }
  // A branch that is not taken: its slope is infinite or NaN there.
  for (const char* score :
       {"score = sqrt(score) if score > 100 else score", "score = score if score < 100 else log(score - 100)",
        "score = max(score, -100) + (1 / (score - score) if score > 100 else 0.0)"}) {
    CAPTURE(score);
    const GradientCase branch = computed(kernel_of(score), make_problem({})),
                       taken = computed(kernel_of("score = score"), make_problem({}));
    branch.q.each(
        [&](const Index& i) { CHECK(branch.q.at(i) == doctest::Approx(taken.q.at(i)).epsilon(1e-12)); });
  }
}

TEST_CASE("gradients: at kinks, as the reference says") {
  // One query, one key, head dim 8: the score is q[0] * k[0] with scale 1; without a softmax its slope is
  // seen.
  ProblemShape s;
  s.batch = s.heads = s.kv_heads = 1;
  s.queries = s.keys = {1};
  s.lse = false;
  const auto slope = [&](const std::string& score, double at) {
    const Kernel kernel = kernel_of("normalize = none\nscale = 1\nscore = " + score, s);
    Problem problem = make_problem(s);
    problem.q.fill(0.0).set({0, 0, 0, 0}, at);
    problem.k.fill(0.0).set({0, 0, 0, 0}, 1);
    problem.v.fill(0.0).set({0, 0, 0, 0}, 1);
    std::mt19937 random(1);
    GradientCase c = gradient_case(kernel, std::move(problem), random);
    c.d_out.fill(1.0);
    kernel.backward(c.problem.arguments(), c.given(), c.wanted()).value();
    return c.q.at({0, 0, 0, 0});
  };
  CHECK(slope("abs(score)", 0) == 0);
  CHECK(slope("abs(score)", -2) == -1);
  CHECK(slope("relu(score)", 0) == 0);
  CHECK(slope("relu(score)", 1e-9) == 1);
  CHECK(slope("max(score, 1)", 1) == 0);
  CHECK(slope("max(1, score)", 1) == 1);
  CHECK(slope("min(score, 1)", 1) == 0);
  CHECK(slope("min(2 * score, 3 * score)", 0) == 3);
  CHECK(slope("clamp(score, -1, 1)", 1) == 0);
  CHECK(slope("clamp(score, -1, 1)", -1) == 0);
  CHECK(slope("clamp(score, -1, 1)", 0.5) == 1);
  CHECK(slope("sign(score)", 0.5) == 0);
  CHECK(slope("floor(score) + ceil(score) + round(score)", 0.5) == 0);
  CHECK(slope("score % 2", 2.5) == 1);
  CHECK(slope("5.5 % score", 2) == -2);
  CHECK(slope("score // 2", 2.5) == 0);
  CHECK(slope("score * int(score)", 2.5) == 2);
  CHECK(slope("2 * score if score > 1 else 3 * score", 1) == 3);
  CHECK(slope("2 ** score", 0) == doctest::Approx(std::log(2.0)));
  CHECK(slope("score ** 2.5", 0) == 0);
  CHECK(slope("0.0 ** score", 2) == 0);
  CHECK(slope("score ** score", 1) == 1);
  CHECK(slope("max(score, inf - inf)", 1) == 1);  // a number is chosen over NaN
  CHECK(slope("min(inf - inf, score)", 1) == 1);
}

TEST_CASE("gradients: a norm at its floor passes nothing on") {
  const Kernel kernel = kernel_of("query = l2norm\nkey = l2norm");
  Problem problem = make_problem({});
  for (std::int64_t c = 0; c < 8; ++c) problem.q.set({0, 0, 2, c}, 0), problem.k.set({1, 1, 3, c}, 1e-14);
  const GradientCase c = computed(kernel, problem);
  for (std::int64_t i = 0; i < 8; ++i) {
    CHECK(c.q.at({0, 0, 2, i}) == 0);
    CHECK(c.k.at({1, 1, 3, i}) == 0);
  }
  CHECK(all_finite(c.q));
  CHECK(!all_zero(c.k));
}

TEST_CASE("gradients: shards see global coordinates") {
  ProblemShape s;
  s.queries = {5}, s.keys = {7};
  s.grid = {13}, s.key_grid = {13};
  s.q_origin = {8}, s.k_origin = {4};
  const Kernel kernel =
      kernel_of("input t: float[25] learnable\nscore = score + t[q - k + 12]\nmask = k <= q");
  Problem problem = make_problem(s);
  std::mt19937 random(5);
  problem.inputs["t"] = HostTensor(DType::f64, {25}).fill_random(random);
  GradientCase c = gradient_case(kernel, std::move(problem), random);
  check(kernel, c, "shard");
  CHECK(c.inputs.at("t").at({0}) == 0);  // no key is that far ahead
  CHECK(c.inputs.at("t").at({20}) != 0);
}

TEST_CASE(
    "gradients: the same bits with any number of threads, and in every layout and dtype of the result") {
  const Kernel kernel = kernel_of("input t: float[heads, 25] learnable\nscore = score + t[h, q - k + 12]");
  Problem problem = make_problem({});
  std::mt19937 random(5);
  problem.inputs["t"] = HostTensor(DType::f64, {4, 25}).fill_random(random);
  GradientCase c = computed(kernel, problem);
  const runtime::Problem bound = kernel.impl().bind(c.problem.arguments()).value();
  const ir::Module& module = kernel.impl().differentiated();
  for (const unsigned threads : {1u, 2u, 3u, 16u}) {
    GradientCase again = c;
    again.q.fill(9.0), again.k.fill(9.0), again.inputs.at("t").fill(9.0);
    const auto given =
        runtime::bind_output_differentials(module, bound, again.given(), "gradient", true).value();
    const auto wanted = runtime::bind_differentials(module, bound, again.wanted(), "gradient").value();
    cpu::backward(module, bound, given, wanted, threads);
    CHECK(again.q.bytes() == c.q.bytes());
    CHECK(again.k.bytes() == c.k.bytes());
    CHECK(again.inputs.at("t").bytes() == c.inputs.at("t").bytes());
  }
  // Heads last, and rounded once.
  HostTensor q(DType::f32, {2, 4, 13, 8}, {13 * 4 * 8, 8, 4 * 8, 1});
  kernel.backward(c.problem.arguments(), c.given(), {.q = q.view()}).value();
  q.each([&](const Index& i) { CHECK(q.at(i) == static_cast<double>(static_cast<float>(c.q.at(i)))); });
}

TEST_CASE("gradients: what cannot be computed is refused before anything is") {
  const Kernel kernel = kernel_of(
      "input t: float[heads] learnable\ninput u: float[heads]\n"
      "param a: float = 1 learnable\nparam c: float = 1\n"
      "score = a * score + t[h] * u[h] * c");
  Problem problem = make_problem({});
  for (const char* name : {"t", "u"}) problem.inputs[name] = HostTensor(DType::f64, {4}).fill(0.5);
  std::mt19937 random(1);
  GradientCase c = gradient_case(kernel, std::move(problem), random);
  c.q.fill(0.0);
  const auto refused = [&](const OutputDifferentials& given, const Differentials& wanted, ErrorKind kind,
                           const std::string& message) {
    CAPTURE(message);
    const Result<void> result = kernel.backward(c.problem.arguments(), given, wanted);
    REQUIRE(!result);
    CHECK(result.error().kind == kind);
    CHECK(result.error().message == message);
    CHECK(all_zero(c.q));
  };
  const Tensor four = c.inputs.at("t").view(), q = c.q.view();
  const auto of_input = [&](const char* name, const Tensor& t) {
    Differentials d{.q = q};
    d.inputs[name] = t;
    return d;
  };
  const auto of_param = [&](const char* name, const Tensor& t) {
    Differentials d{.q = q};
    d.params[name] = t;
    return d;
  };
  refused({}, {.q = q}, ErrorKind::spec, "the gradient of out is missing");
  refused({.out = c.d_lse.view()}, {.q = q}, ErrorKind::spec,
          "`out` has shape [2, 4, 13]: it must be [batch, heads, tokens, dim]");
  refused({.out = q, .lse = q}, {.q = q}, ErrorKind::spec,
          "`gradient of lse` has shape [2, 4, 13, 8]: it must be [batch, heads, tokens]");
  refused(c.given(), {.q = q, .k = q}, ErrorKind::spec,
          "`gradient of k` has shape [2, 4, 13, 8], and must have [2, 2, 13, 8]");
  refused(c.given(), {.q = q, .context_k = q}, ErrorKind::spec, "the variant has no context keys");
  refused(c.given(), of_input("u", four), ErrorKind::spec, "input `u` has no gradient: it is not learnable");
  refused(c.given(), of_input("w", four), ErrorKind::usage, "the variant has no input `w`");
  refused(c.given(), of_input("t", q), ErrorKind::spec,
          "`gradient of t` has shape [2, 4, 13, 8], and must have [4]");
  refused(c.given(), of_param("c", c.params.at("a").view()), ErrorKind::spec,
          "param `c` has no gradient: it is not learnable");
  refused(c.given(), of_param("t", four), ErrorKind::usage, "the variant has no param `t`");
  refused(c.given(), of_param("a", four), ErrorKind::spec, "`gradient of a` has shape [4], and must have []");
  HostTensor ints(DType::i32, {4});
  refused(c.given(), of_input("t", ints.view()), ErrorKind::spec,
          "`gradient of t` is i32, and must be f16, bf16, f32 or f64");
  const Kernel sigmoid = kernel_of("normalize = sigmoid");
  const Result<void> lse = sigmoid.backward(make_problem({}).arguments(),
                                            {.out = c.d_out.view(), .lse = c.d_lse.view()}, {.q = q});
  REQUIRE(!lse);
  CHECK(lse.error().message == "there is no lse: the variant has `normalize = sigmoid`");
}

}  // namespace vicinal::testing
