// Gradients on the command line, against closed forms: with queries of zero the weights are the reciprocal of
// the number of keys that a query sees.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "tests/cli/sandbox.h"

namespace vicinal::testing {
namespace {

constexpr std::int64_t kHeads = 2, kTokens = 6, kDim = 8;
const std::vector<std::int64_t> kShape = {1, kHeads, kTokens, kDim};

std::vector<std::string> arguments(const Sandbox& box, const std::string& spec) {
  return {
      "run",
      spec,
      "--q",
      box.write_npy("q.npy", f64, kShape, [](std::int64_t) { return 0.0; }),
      "--k",
      box.write_npy("k.npy", f64, kShape, [](std::int64_t i) { return i % kDim == 0 ? 1.0 : 0.0; }),
      "--v",
      box.write_npy("v.npy", f64, kShape, [](std::int64_t i) { return 0.25 * static_cast<double>(i % 5); }),
      "--grad-out",
      box.write_npy("d_out.npy", f64, kShape,
                    [](std::int64_t i) { return static_cast<double>(1 + i / kDim % kTokens); })};
}

std::vector<std::string> plus(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST_CASE("run: gradients are written") {
  const Sandbox box;
  const Outcome o = box.run(plus(
      arguments(box, gallery_spec("causal")),
      {"--grad-q", box.path("d_q.npy"), "--grad-k", box.path("d_k.npy"), "--grad-v", box.path("d_v.npy")}));
  CAPTURE(o.err);
  REQUIRE(o.exit == 0);
  CHECK((has(o.out, "gradients by the interpreter in ") || has(o.out, "gradients by cpu/jit in ")));
  // Query i gives each of its i + 1 keys 1 / (i + 1) of its gradient, which is i + 1: 1 each.
  const std::vector<double> d_v = box.read_npy("d_v.npy", kShape), d_k = box.read_npy("d_k.npy", kShape);
  for (std::int64_t i = 0; i < kHeads * kTokens * kDim; ++i) {
    CHECK(d_v[static_cast<std::size_t>(i)] ==
          doctest::Approx(static_cast<double>(kTokens - i / kDim % kTokens)));
    CHECK(d_k[static_cast<std::size_t>(i)] == 0);  // all queries are 0
  }
  // All keys are alike, and weights can only be shifted from one to the other.
  for (const double x : box.read_npy("d_q.npy", kShape)) CHECK(x == doctest::Approx(0).epsilon(1e-6));
}

TEST_CASE("run: gradients of learnable inputs and params, and through the LSE") {
  const Sandbox box;
  const std::string spec =
      box.write("learn.attn",
                "attention learn {\n  input bias: float[heads] learnable\n  param gain: float = 1 learnable\n"
                "  score = gain * (score + bias[h])\n  mask = k <= q\n}\n");
  const Outcome o = box.run(plus(
      arguments(box, spec),
      {"--input",
       "bias=" + box.write_npy("bias.npy", f64, {kHeads},
                               [](std::int64_t i) { return 0.5 + static_cast<double>(i); }),
       "--grad-lse", box.write_npy("d_lse.npy", f64, {1, kHeads, kTokens}, [](std::int64_t) { return 2.0; }),
       "--grad", "bias=" + box.path("d_bias.npy"), "--grad", "gain=" + box.path("d_gain.npy"), "--json"}));
  CAPTURE(o.err);
  REQUIRE(o.exit == 0);
  const std::string path = o.json("vicinal.run.v1").at("gradients").at("path");
  CHECK((path == "interpreter" || path == "cpu/jit"));
  // A bias of the head moves the LSE alone: 2 for each of its six rows, times the gain.
  for (const double x : box.read_npy("d_bias.npy", {kHeads})) CHECK(x == doctest::Approx(12));
  CHECK(box.read_npy("d_gain.npy", {})[0] == doctest::Approx(12 * 0.5 + 12 * 1.5));
}

TEST_CASE("run: gradients that cannot be had are refused before any work") {
  const Sandbox box;
  const auto refused = [&](const std::vector<std::string>& more, int exit, const std::string& message) {
    const Outcome o = box.run(
        plus(plus(arguments(box, gallery_spec("alibi")), more),
             {"--input", "slopes=" + box.write_npy("s.npy", f32, {2}, [](std::int64_t) { return 0.5; }),
              "--out", box.path("out.npy")}));
    CAPTURE(o.err);
    CHECK(o.exit == exit);
    CHECK(has(o.err, message));
  };
  refused({"--grad-q", "/nonexistent/d_q.npy"}, 2, "/nonexistent/d_q.npy");
  CHECK(!box.holds("out.npy"));
  refused({"--grad", "slope=" + box.path("x.npy")}, 2, "the spec has no input and no param `slope`");
  CHECK(!box.holds("out.npy"));
  refused({"--grad", "slopes"}, 2, "`--grad slopes` is not NAME=FILE");
  refused({}, 2, "a gradient of the output is given, and none is asked for");
  refused({"--grad", "slopes=" + box.path("x.npy")}, 1,
          "input `slopes` has no gradient: it is not learnable");
  refused({"--grad-context-k", box.path("x.npy")}, 1, "the variant has no context keys");
  const Outcome o = box.run({"run", gallery_spec("causal"), "--grad-q", box.path("d_q.npy")});
  CHECK(o.exit == 2);
  CHECK(has(o.err, "gradients are asked for, and that of the output is not given"));
}

TEST_CASE("emit and explain show derivatives") {
  const Sandbox box;
  const Outcome gradient = box.run({"emit", "gradient", gallery_spec("softcap")});
  CHECK(gradient.exit == 0);
  CHECK(has(gradient.out, "let v1 = tanh(score / 50.0)\nd(score)/d(score) = 1.0 - v1 * v1\n"));
  const Outcome ir = box.run({"emit", "gradient-ir", gallery_spec("relative_bias")});
  CHECK(ir.exit == 0);
  CHECK(has(ir.out, "\npartial score %"));
  const Outcome explained = box.run({"explain", "gradient", gallery_spec("swin")});
  CHECK(explained.exit == 0);
  CHECK(has(explained.out, "by distance along y, x   diagonal accumulation"));
  const auto json = box.run({"explain", "gradient", gallery_spec("graphormer"), "--json"})
                        .json("vicinal.explain.gradient.v1");
  CHECK(json.at("inputs")[0].at("pattern") == "general");
  CHECK(json.at("inputs")[0].at("accumulation") == "ordered fallback");
  CHECK(json.at("inputs")[0].at("why") == "which pairs share an element is not known beforehand");
  CHECK(json.at("derivatives")[0].at("value") == "1.0");
  const auto sums = box.run({"explain", "gradient", gallery_spec("swin"), "--shape", "heads=4,head_dim=32",
                             "--grid", "y=14,x=14", "--json"})
                        .json("vicinal.explain.gradient.v1")
                        .at("sums");
  CHECK(sums.at("elements") == 4 * 7 * 7);
  CHECK(sums.at("bytes") == 4 * sums.at("elements").get<int>() * sums.at("lists").get<int>());
}

}  // namespace
}  // namespace vicinal::testing
