// Gradients by generated code for the CPU against the interpreter's: the gallery in every dtype, random
// specs, lengths around tiles, rows that keep nothing, NaN in what is not kept, and the same bits on any
// number of threads. VICINAL_RANDOM_SPECS says how many random specs (240).
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>

#include "runtime/kernel_impl.h"
#include "tests/support/code_generator.h"
#include "tests/support/gallery.h"
#include "tests/support/kernel_gradients.h"
#include "tests/support/random_problem.h"
#include "tests/support/random_spec.h"
#include "tests/support/sanitized.h"

namespace vicinal::testing {
namespace {

constexpr unsigned kRandomSpecs = kSanitized ? 40 : 1000;

constexpr DType kDTypes[] = {DType::f32, DType::bf16, DType::f16};

struct Pair {
  Kernel host, compiled;
};
Pair compile_both(const Spec& spec, CompileOptions options) {
  options.backend = Backend::interpreter;
  Kernel host = compile(spec, options).value();
  options.backend = Backend::cpu;
  return {std::move(host), compile(spec, options).value()};
}

// Why the interpreter computes the gradients; empty where code was compiled.
std::string obstacle(const Kernel& kernel) {
  const auto& gradients = kernel.impl().host_gradients();
  return gradients ? std::string() : gradients.error().message;
}

void check_gradients(const Pair& pair, Problem problem, std::mt19937& random, DType dtype,
                     const std::function<void(Problem&)>& spoil = nullptr) {
  GradientCase c = gradient_case(pair.host, std::move(problem), random);
  round_given(c, dtype);
  if (spoil) spoil(c.problem);
  REQUIRE(pair.host.backward(c.problem.arguments(), c.given(), c.wanted()).has_value());
  KernelGradients got(c, dtype);
  // With what a run wrote, and without.
  RunArguments arguments = c.problem.arguments();
  if (pair.host.impl().variant.checked.module.normalize != ir::Normalize::softmax) arguments.lse.reset();
  const Result<void> ran = pair.compiled.run(arguments);
  REQUIRE_MESSAGE(ran.has_value(), (ran ? "" : ran.error().message));
  if (random() % 2 == 0) arguments.lse.reset();
  const Result<void> done = pair.compiled.backward(arguments, c.given(), got.wanted());
  REQUIRE_MESSAGE(done.has_value(), (done ? "" : done.error().message));
  check_kernel_gradients(pair.host, {&got}, c, dtype);
}

Spec block(const std::string& statements) {
  return Spec::from_string("attention t {\n" + statements + "\n}\n").value();
}

ProblemShape shape_of(std::int64_t tokens, DType dtype = DType::f32) {
  ProblemShape s;
  s.batch = 1, s.heads = 4, s.kv_heads = 2;
  s.head_dim = s.value_dim = 16;
  s.queries = s.keys = {tokens};
  s.dtype = dtype;
  return s;
}

CompileOptions options_of(std::int64_t head_dim, std::int64_t value_dim, DType dtype) {
  CompileOptions options;
  options.dtype = dtype;
  options.head_dim = head_dim;
  options.value_dim = value_dim;
  return options;
}

}  // namespace

TEST_CASE("gradients on the CPU: the gallery") {
  if (lacks_code_generator()) return;
  std::mt19937 random(41);
  unsigned seed = 0;
  for (const GalleryBlock& variant : learnable_gallery())
    for (const DType dtype : kDTypes) {
      // The interpreter takes its time.
      if (dtype != DType::f32 && ++seed % 6 != 0) continue;
      CAPTURE(variant.name);
      CAPTURE(std::string(name_of(dtype)));
      const Pair pair = compile_both(variant.spec, options_of(16, 24, dtype));
      CHECK(obstacle(pair.compiled) == "");
      std::optional<Problem> problem = random_problem(pair.host, random, {.tokens = 30, .heads = 2});
      REQUIRE(problem.has_value());
      check_gradients(pair, *std::move(problem), random, dtype);
    }
}

TEST_CASE("gradients on the CPU: everything that a spec can say") {
  if (lacks_code_generator()) return;
  std::mt19937 random(43);
  for (const char* const text :
       {"input t: float[heads, 9] learnable\ninput s: float[heads] learnable\n"
        "input r: float[tokens] learnable\nparam a: float = 1 learnable\n"
        "score = a * 2.5 * tanh(score / 2.5) + t[h, clamp(k - q, -4, 4) + 4] * relu(score) + r[q]\n"
        "scale = 0.5 * s[h]\nsink = s[h] + a\nmask = k <= q or k % 5 == 2\nkey = l2norm",
        "axis y { window = 3, dilation = 2 }\naxis x { window = 4, stride = 2, causal }\ncontext\n"
        "input t: float[heads] learnable\nquery = l2norm\n"
        "score = score + (0.25 * k * t[h] if k.context else t[h] * (q.x - k.x) * score)\n"
        "mask = (k + q.y) % 3 != 1 if k.context else k.x != 2",
        "normalize = sigmoid\ninput w: float[batch, heads, tokens, keys] learnable\n"
        "score = 0.5 * score * w[b, h, q, k] if q < k + 20 else -inf",
        "normalize = none\ninput x: float[keys] learnable\nscore = score * x[k]\nmask = k <= q",
        "axis t { window = 12, causal }", "mask = k <= q and q - k < 9",
        "input g: float[heads] learnable\ninput r: float[tokens] learnable\nparam a: float = 0.5 learnable\n"
        "input x: float[heads, 5] learnable\ninput y: float[batch, tokens, 5] learnable\n"
        "score = score + g[h]\nmask = k <= q\nsink = g[h]\n"
        "output = out * sigmoid(a * lse - g[h]) + r[q.index] * out * out + dot(x[h, :], y[b, q.index, :])",
        "normalize = sigmoid\ninput g: float[kv_heads] learnable\nmask = k != 5\noutput = log(out * out + "
        "g[kv_h] ** 2)",
        "normalize = none\ninput g: float[heads] learnable\noutput = g[h] * (out if out > 0.125 else 0)",
        "output = 2", "input g: float[heads]\noutput = out if lse < g[h] + 4 else 0.5 * out",
        "input x: float[batch, heads, tokens, 21] learnable\ninput y: float[batch, keys, 21] learnable\n"
        "score = score + 0.5 * dot(x[b, h, q, :], y[b, k, :])\nmask = k <= q",
        "input x: float[heads, 7] learnable\ninput y: float[kv_heads, 7] learnable\ninput z: float[40, 7]\n"
        "score = score * dot(x[h, :], y[kv_h, :]) + dot(y[kv_h, :], z[abs(q - k), :]) + dot(x[h, :], x[h, "
        ":])",
        "context\ninput x: float[context, 33] learnable\ninput y: float[tokens, 33] learnable\n"
        "score = score + (dot(y[q, :], x[k, :]) if k.context else dot(y[q, :], y[k, :]))\n"
        "output = out * exp(lse / 64)"})
    for (const std::int64_t tokens : {40, 150}) {
      CAPTURE(text);
      CAPTURE(tokens);
      const Pair pair = compile_both(block(text), options_of(16, 24, DType::f32));
      CHECK(obstacle(pair.compiled) == "");
      std::optional<Problem> problem = random_problem(pair.host, random, {.tokens = tokens});
      REQUIRE(problem.has_value());
      check_gradients(pair, *std::move(problem), random, DType::f32);
    }
}

TEST_CASE("gradients on the CPU: lengths around tiles, head dims, and layouts") {
  if (lacks_code_generator()) return;
  const Spec spec = block("align = end\nscore = score - 0.125 * abs(q - k)\nmask = k <= q and q - k < 70");
  std::mt19937 random(47);
  const Layout layouts[] = {Layout::bhnd, Layout::bnhd, Layout::padded, Layout::reversed};
  unsigned turn = 0;
  for (const auto& [head_dim, value_dim] :
       {std::pair(64, 64), std::pair(8, 24), std::pair(40, 8), std::pair(80, 128)}) {
    const DType dtype = kDTypes[turn % 3];
    const Pair pair = compile_both(spec, options_of(head_dim, value_dim, dtype));
    for (const std::int64_t queries : {1, 47, 96, 97})
      for (const std::int64_t keys : {1, 71, 72, 145}) {
        CAPTURE(head_dim);
        CAPTURE(queries);
        CAPTURE(keys);
        ProblemShape s = shape_of(queries, dtype);
        s.heads = 2, s.kv_heads = 1;
        s.keys = {keys};
        s.head_dim = head_dim, s.value_dim = value_dim;
        s.layout = layouts[turn++ % 4];
        check_gradients(pair, make_problem(s, static_cast<unsigned>(random())), random, dtype);
      }
  }
}

TEST_CASE("gradients on the CPU: what is not kept leaves no trace") {
  if (lacks_code_generator()) return;
  std::mt19937 random(53);
  for (const char* const text :
       {"mask = k != 3 and k <= q + 9", "mask = k != 3 and q % 7 != 2", "normalize = sigmoid\nmask = k != 3",
        "score = score if k != 3 else -inf", "axis t { window = 5 }\nmask = k != 3",
        "param a: float = 1 learnable\nmask = k != 3 and q % 7 != 2\noutput = a * out * sigmoid(lse)"})
    for (const DType dtype : kDTypes) {
      CAPTURE(text);
      const Pair pair = compile_both(block(text), options_of(16, 16, dtype));
      REQUIRE(obstacle(pair.compiled) == "");
      check_gradients(pair, make_problem(shape_of(50, dtype)), random, dtype, [](Problem& problem) {
        problem.k.each([&](const Index& i) {
          if (i[2] == 3) problem.k.set(i, NAN), problem.v.set(i, INFINITY);
        });
      });
    }
}

TEST_CASE("gradients on the CPU: the same bits on any number of threads, and again") {
  if (lacks_code_generator()) return;
  std::mt19937 random(59);
  // Queries of several parts, of which none reaches all keys.
  const Pair pair =
      compile_both(block("input t: float[heads, 1301] learnable\nparam a: float = 1 learnable\n"
                         "input x: float[1301, 19] learnable\n"
                         "score = a * score + t[h, abs(q - k)] + dot(x[q, :], x[k, :])\n"
                         "mask = k <= q and q - k < 50\noutput = a * out * sigmoid(lse + t[h, q])"),
                   options_of(16, 16, DType::f32));
  ProblemShape shape = shape_of(1301);
  shape.heads = 2, shape.kv_heads = 1;
  Problem problem = make_problem(shape);
  problem.inputs["t"] = HostTensor(DType::f32, {2, 1301}).fill(0.25);
  problem.inputs["x"] = HostTensor(DType::f32, {1301, 19});
  problem.inputs["x"].fill_random(random);
  GradientCase c = gradient_case(pair.host, std::move(problem), random);
  round_given(c, DType::f32);
  REQUIRE(pair.host.backward(c.problem.arguments(), c.given(), c.wanted()).has_value());
  const auto& gradients = pair.compiled.impl().host_gradients();
  REQUIRE(gradients.has_value());
  std::vector<std::vector<std::byte>> first;
  for (const unsigned threads : {1u, 2u, 3u, 7u, 2u}) {
    KernelGradients got(c, DType::f32);
    const runtime::Problem bound = pair.compiled.impl().bind(c.problem.arguments()).value();
    const ir::Module& module = pair.compiled.impl().differentiated();
    const auto given = runtime::bind_output_differentials(module, bound, c.given(), "gradient", true).value();
    const auto wanted = runtime::bind_differentials(module, bound, got.wanted(), "gradient").value();
    REQUIRE((*gradients)->run(bound, true, given, wanted, threads).has_value());
    const std::vector<std::vector<std::byte>> bytes = {got.q.bytes(),
                                                       got.k.bytes(),
                                                       got.v.bytes(),
                                                       got.inputs.at("t").bytes(),
                                                       got.inputs.at("x").bytes(),
                                                       got.params.at("a").bytes()};
    if (first.empty()) {
      first = bytes;
      check_kernel_gradients(pair.host, {&got}, c, DType::f32);
    }
    CHECK(first == bytes);
  }
}

TEST_CASE("gradients on the CPU: random specs") {
  if (lacks_code_generator()) return;
  const char* wanted = std::getenv("VICINAL_RANDOM_SPECS");
  const char* start = std::getenv("VICINAL_RANDOM_SEED");
  const unsigned count = wanted == nullptr ? kRandomSpecs
                                           : static_cast<unsigned>(std::strtoul(wanted, nullptr, 10)),
                 first = start == nullptr ? 1 : static_cast<unsigned>(std::strtoul(start, nullptr, 10));
  constexpr int kTileQ[] = {0, 16, 32, 96}, kTileK[] = {0, 3, 8, 17};
  unsigned compared = 0;
  for (unsigned seed = first; seed < first + count; ++seed) {
    std::mt19937 random(seed);  // so that a spec alone meets the problem that it meets among others
    const std::string text = random_spec(seed, true).text;
    CAPTURE(seed);
    CAPTURE(text);
    const DType dtype = kDTypes[seed % 5 % 3];
    CAPTURE(std::string(name_of(dtype)));
    CompileOptions options = options_of(seed % 2 == 0 ? 16 : 24, seed % 7 == 0 ? 8 : 16, dtype);
    options.tile_q = kTileQ[random() % 4];
    options.tile_k = kTileK[random() % 4];
    const Pair pair = compile_both(Spec::from_string(text).value(), options);
    CHECK(obstacle(pair.compiled) == "");
    std::optional<Problem> problem;
    for (int attempt = 0; attempt < 6 && !problem; ++attempt) {
      problem = random_problem(pair.host, random, {.tokens = 24});
      if (problem && !keeps_from_kinks(pair.host, *problem, 1e-3)) problem.reset();
    }
    if (!problem) continue;
    check_gradients(pair, *std::move(problem), random, dtype);
    ++compared;
  }
  MESSAGE(compared, " of ", count, " random specs compared");
  CHECK(compared * 3 > count);
}

}  // namespace vicinal::testing
