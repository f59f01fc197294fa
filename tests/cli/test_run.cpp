// `vicinal run`: what it computes, against closed forms. With queries of zero every score is zero, so the
// output is the mean of the values that a query sees, and the lse the logarithm of their number.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <signal.h>

#include <cmath>
#include <limits>
#include <utility>

#include "tests/cli/sandbox.h"

namespace vicinal::testing {
namespace {

constexpr std::int64_t kHeads = 2, kTokens = 12, kDim = 8;

double zero(std::int64_t) {
  return 0;
}

// q of zeros and v[token] = token in every channel, as files [1, 2, 12, 8].
std::vector<std::string> tensor_files(const Sandbox& box, DType dtype) {
  const std::vector<std::int64_t> shape = {1, kHeads, kTokens, kDim};
  return {
      "--q",
      box.write_npy("q.npy", dtype, shape, zero),
      "--k",
      box.write_npy("k.npy", dtype, shape, [](std::int64_t i) { return 0.5 * static_cast<double>(i % 7); }),
      "--v",
      box.write_npy("v.npy", dtype, shape,
                    [](std::int64_t i) { return static_cast<double>(i / kDim % kTokens); })};
}

std::vector<std::string> join(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// The mean token and the number of tokens in [first(t), t].
void check_ranges(const Sandbox& box, const std::function<std::int64_t(std::int64_t)>& first) {
  const auto out = box.read_npy("out.npy", {1, kHeads, kTokens, kDim});
  const auto lse = box.read_npy("lse.npy", {1, kHeads, kTokens});
  for (std::int64_t i = 0; i < kHeads * kTokens; ++i) {
    const std::int64_t t = i % kTokens, from = first(t);
    CAPTURE(t);
    CHECK(lse[static_cast<std::size_t>(i)] == doctest::Approx(std::log(static_cast<double>(t - from + 1))));
    for (std::int64_t c = 0; c < kDim; ++c)
      CHECK(out[static_cast<std::size_t>(i * kDim + c)] ==
            doctest::Approx(static_cast<double>(t + from) / 2));
  }
}

TEST_CASE("run: a spec alone is run on a default problem and checked") {
  const Sandbox box;
  for (const char* spec : {"causal", "alibi", "neighborhood_2d", "document", "video_context"}) {
    const Outcome o = box.run({"run", gallery_spec(spec)});
    CAPTURE(o.err);
    CHECK(o.exit == 0);
    CHECK(has(o.out, fmt::format("{}: batch ", spec)));
    CHECK(has(o.out, "rows against the interpreter in double precision"));
    CHECK(has(o.out, "pass"));
    CHECK(o.err.empty());
  }
  CHECK(box.count_files() == 0);
}

TEST_CASE("run: tensors from files of each floating type") {
  for (const DType dtype : {f16, f32, f64}) {
    const Sandbox box;
    const Outcome o = box.run(join(join({"run", gallery_spec("causal")}, tensor_files(box, dtype)),
                                   {"--out", box.path("out.npy"), "--lse", box.path("lse.npy"), "--scores",
                                    box.path("scores.npy"), "--check"}));
    CAPTURE(o.err);
    REQUIRE(o.exit == 0);
    check_ranges(box, [](std::int64_t) { return 0; });
    const auto scores = box.read_npy("scores.npy", {1, kHeads, kTokens, kTokens});
    for (std::int64_t i = 0; i < kHeads * kTokens * kTokens; ++i)
      CHECK(scores[static_cast<std::size_t>(i)] ==
            (i % kTokens <= i / kTokens % kTokens ? 0.0 : -std::numeric_limits<double>::infinity()));
  }
}

TEST_CASE("run: a param baked in and one passed at launch give the same") {
  const Sandbox box;
  const std::vector<std::string> outputs = {"--out", box.path("out.npy"), "--lse", box.path("lse.npy")};
  const std::vector<std::string> run = join(
      join({"run", gallery_spec("sliding_window"), "--param", "window=4"}, tensor_files(box, f32)), outputs);
  REQUIRE(box.run(run).exit == 0);
  check_ranges(box, [](std::int64_t t) { return std::max<std::int64_t>(0, t - 3); });
  const std::string baked = box.read("out.npy");
  REQUIRE(box.run(join(run, {"--dynamic", "window"})).exit == 0);
  CHECK(box.read("out.npy") == baked);
}

TEST_CASE("run: an input from a file") {
  const Sandbox box;
  const std::vector<std::string> tensors = tensor_files(box, f32);
  const std::string slopes = box.write_npy("slopes.npy", f32, {kHeads}, zero);
  const Outcome o = box.run(join(join({"run", gallery_spec("alibi"), "--input", "slopes=" + slopes}, tensors),
                                 {"--out", box.path("out.npy"), "--lse", box.path("lse.npy")}));
  CAPTURE(o.err);
  REQUIRE(o.exit == 0);
  check_ranges(box, [](std::int64_t) { return 0; });
}

TEST_CASE("run: heads first and heads last are the same problem in another order") {
  const Sandbox box;
  const auto element = [](std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t c) {
    return std::sin(static_cast<double>(((b * kHeads + h) * kTokens + t) * kDim + c));
  };
  std::vector<std::string> first = {"run", gallery_spec("causal"), "--layout", "bhnd"},
                           last = {"run", gallery_spec("causal"), "--layout", "bnhd"};
  for (const std::string name : {"q", "k", "v"}) {
    const auto at_first = [&](std::int64_t i) {
      return element(0, i / kDim / kTokens, i / kDim % kTokens, i % kDim);
    };
    const auto at_last = [&](std::int64_t i) {
      return element(0, i / kDim % kHeads, i / kDim / kHeads, i % kDim);
    };
    first =
        join(first, {"--" + name, box.write_npy(name + "1.npy", f32, {1, kHeads, kTokens, kDim}, at_first)});
    last = join(last, {"--" + name, box.write_npy(name + "2.npy", f32, {1, kTokens, kHeads, kDim}, at_last)});
  }
  REQUIRE(box.run(join(first, {"--out", box.path("out1.npy"), "--lse", box.path("lse1.npy")})).exit == 0);
  REQUIRE(box.run(join(last, {"--out", box.path("out2.npy"), "--lse", box.path("lse2.npy")})).exit == 0);
  const auto out1 = box.read_npy("out1.npy", {1, kHeads, kTokens, kDim}),
             out2 = box.read_npy("out2.npy", {1, kTokens, kHeads, kDim}),
             lse1 = box.read_npy("lse1.npy", {1, kHeads, kTokens}),
             lse2 = box.read_npy("lse2.npy", {1, kTokens, kHeads});
  for (std::size_t h = 0; h < kHeads; ++h)
    for (std::size_t t = 0; t < kTokens; ++t) {
      CHECK(lse1[h * kTokens + t] == lse2[t * kHeads + h]);
      for (std::size_t c = 0; c < kDim; ++c)
        CHECK(out1[(h * kTokens + t) * kDim + c] == out2[(t * kHeads + h) * kDim + c]);
    }
}

TEST_CASE("run: shapes and grids") {
  const Sandbox box;
  Outcome o = box.run({"run", gallery_spec("causal"), "--shape",
                       "batch=2,heads=6,kv_heads=3,tokens=20,keys=30,head_dim=16,value_dim=24", "--out",
                       box.path("out.npy"), "--check"});
  CAPTURE(o.err);
  CHECK(o.exit == 0);
  CHECK(has(o.out, "batch 2, heads 6, kv_heads 3, tokens 20, keys 30, head_dim 16, value_dim 24, f32, bhnd"));
  box.read_npy("out.npy", {2, 6, 20, 24});

  // A grid axis is a dimension of its own.
  o = box.run({"run", gallery_spec("neighborhood_2d"), "--grid", "y=8,x=9", "--shape", "heads=1,head_dim=8",
               "--out", box.path("out.npy"), "--lse", box.path("lse.npy")});
  CHECK(o.exit == 0);
  CHECK(has(o.out, "tokens 72 (8 x 9)"));
  box.read_npy("out.npy", {1, 1, 8, 9, 8});
  box.read_npy("lse.npy", {1, 1, 8, 9});

  // The same tokens in one dimension, with the grid given.
  const std::vector<std::int64_t> flat = {1, 1, 72, 8};
  o = box.run({"run", gallery_spec("neighborhood_2d"), "--grid", "y=8,x=9", "--q",
               box.write_npy("q.npy", f32, flat, zero), "--k", box.write_npy("k.npy", f32, flat, zero), "--v",
               box.write_npy("v.npy", f32, flat, zero), "--lse", box.path("lse.npy")});
  CHECK(o.exit == 0);
  for (const double lse : box.read_npy("lse.npy", {1, 1, 72})) CHECK(lse == doctest::Approx(std::log(49.0)));
}

TEST_CASE("run: zero extents are legal") {
  const Sandbox box;
  const auto shape = [](const char* sizes) { return fmt::format("heads=2,head_dim=8,{}", sizes); };
  Outcome o =
      box.run({"run", gallery_spec("causal"), "--shape", shape("tokens=0"), "--out", box.path("none.npy"),
               "--lse", box.path("lse.npy"), "--scores", box.path("scores.npy"), "--check"});
  CAPTURE(o.err);
  CHECK(o.exit == 0);
  CHECK(box.read_npy("none.npy", {1, 2, 0, 8}).empty());
  CHECK(box.read_npy("lse.npy", {1, 2, 0}).empty());
  box.read_npy("scores.npy", {1, 2, 0, 0});

  o = box.run({"run", gallery_spec("causal"), "--shape", shape("tokens=3,keys=0"), "--out",
               box.path("out.npy"), "--lse", box.path("lse.npy")});
  CHECK(o.exit == 0);
  for (const double x : box.read_npy("out.npy", {1, 2, 3, 8})) CHECK(x == 0);
  for (const double x : box.read_npy("lse.npy", {1, 2, 3}))
    CHECK(x == -std::numeric_limits<double>::infinity());

  CHECK(box.run({"run", gallery_spec("causal"), "--shape", shape("batch=0,tokens=4")}).exit == 0);
}

TEST_CASE("run: a seed gives the same numbers, another seed others") {
  const Sandbox box;
  const auto output = [&](const char* seed, const char* tile) {
    const Outcome o = box.run({"run", gallery_spec("softcap"), "--shape", "tokens=32,head_dim=8", "--backend",
                               "interpreter", "--seed", seed, "--tile", tile, "--out", box.path("out.npy")});
    CHECK(o.exit == 0);
    return box.read("out.npy");
  };
  const std::string first = output("1", "16,16");
  CHECK(output("1", "16,16") == first);
  CHECK(output("1", "64,32") == first);  // the interpreter has no tiles
  CHECK(output("2", "16,16") != first);
}

TEST_CASE("run --json") {
  const Sandbox box;
  const Outcome o = box.run({"run", gallery_spec("causal"), "--shape", "tokens=16,head_dim=8", "--backend",
                             "interpreter", "--check", "--json"});
  CHECK(o.exit == 0);
  const nlohmann::json json = o.json("vicinal.run.v1");
  CHECK(json.at("spec") == "causal");
  CHECK(json.at("path") == "interpreter");
  CHECK(json.at("milliseconds").is_number());
  CHECK(json.at("check").at("rows") == 64);
  CHECK(json.at("check").at("pass") == true);
  CHECK(json.at("check").at("errors").size() == 2);
  CHECK(json.at("kernel").at("origin") == "none");
  // Without --check nothing is compared.
  const Outcome plain = box.run({"run", gallery_spec("causal"), "--shape", "tokens=16,head_dim=8", "--json"});
  CHECK(!plain.json("vicinal.run.v1").contains("check"));
}

TEST_CASE("run: a file with several blocks wants one named") {
  const Sandbox box;
  const Outcome o = box.run({"run", gallery_spec("gemma2")});
  CHECK(o.exit == 2);
  CHECK(has(o.err, "local"));
  CHECK(has(o.err, "global"));
  CHECK(box.run({"run", gallery_spec("gemma2") + ":global", "--shape", "tokens=16,head_dim=8"}).exit == 0);
  const Outcome unknown = box.run({"run", gallery_spec("gemma2") + ":gemma3"});
  CHECK(unknown.exit == 2);
  CHECK(has(unknown.err, "gemma3"));
}

TEST_CASE("run: a spec on standard input") {
  const Sandbox box;
  Given given;
  given.standard_input = "attention piped { mask = k <= q }\n";
  const Outcome o = box.run({"run", "-", "--shape", "tokens=16,head_dim=8"}, given);
  CHECK(o.exit == 0);
  CHECK(has(o.out, "piped: "));
}

TEST_CASE("run: without a driver, cuda is an error and auto goes on") {
  const Sandbox box;
  const std::vector<std::string> run = {"run", gallery_spec("causal"), "--shape", "tokens=16,head_dim=8"};
  const Outcome cuda = box.run(join(run, {"--backend", "cuda"}));
  CHECK(cuda.exit == 3);
  CHECK(cuda.out.empty());
  CHECK(has(cuda.err, "driver"));
  CHECK(has(cuda.err, "help: "));
  const Outcome automatic = box.run(join(run, {"--backend", "auto"}));
  CHECK(automatic.exit == 0);
  CHECK(has(automatic.out, "no GPU: "));
  const Outcome asked = box.run(join(run, {"--backend", "interpreter"}));
  CHECK(asked.exit == 0);
  CHECK(!has(asked.out, "no GPU"));
}

TEST_CASE("run: without a code generator the CPU is the interpreter") {
  const Sandbox box;
  Given given;
  given.environment["VICINAL_CPU_LLVM"] = box.path("nothing.so");
  const Outcome o =
      box.run({"run", gallery_spec("causal"), "--shape", "tokens=16,head_dim=8", "--backend", "cpu"}, given);
  CHECK(o.exit == 0);
  CHECK(has(o.out, "ran on the interpreter"));
  CHECK(has(o.out, "no compiler for the CPU: cannot open the code generator"));
  const Outcome doctor = box.run({"doctor"}, given);
  CHECK(doctor.exit == 0);
  CHECK(has(doctor.out, "--   cpu"));
  CHECK(has(doctor.out, "llvm-19-dev"));
  const Outcome emit = box.run({"emit", "llvm", gallery_spec("causal")}, given);
  CHECK(emit.exit == 3);
}

TEST_CASE("run and emit: generated code for the CPU") {
  const Sandbox box;
  if (!has(box.run({"doctor"}).out, "LLVM, ")) {
    MESSAGE("skipped: there is no code generator for the CPU");
    return;
  }
  const Outcome o = box.run({"run", gallery_spec("causal"), "--shape", "tokens=16,head_dim=8", "--backend",
                             "cpu", "--check", "--json"});
  CHECK(o.exit == 0);
  const nlohmann::json json = o.json("vicinal.run.v1");
  CHECK(json.at("path") == "cpu/jit");
  CHECK(json.at("check").at("pass") == true);
  CHECK(json.at("kernel").at("origin") == "compiled");
  CHECK(has(box.run({"emit", "llvm", gallery_spec("causal")}).out, "define void @vicinal_visit("));
  CHECK(has(box.run({"emit", "llvm-optimized", gallery_spec("causal")}).out, "@vicinal_visit("));
  CHECK(has(box.run({"emit", "asm", gallery_spec("causal")}).out, "vicinal_visit:"));
  CHECK(box.count_files() == 0);
}

TEST_CASE("run: an interrupted run leaves no file behind, and an old output as it was") {
  const Sandbox box;
  box.write("old.npy", "what was there");
  const Outcome o =
      box.interrupt({"run", gallery_spec("causal"), "--shape", "heads=8,tokens=50000,head_dim=256", "--out",
                     box.path("new.npy"), "--lse", box.path("old.npy")},
                    0.5);
  CHECK(o.exit == 130);
  CHECK(o.out.empty());
  CHECK(box.count_files() == 1);
  CHECK(box.read("old.npy") == "what was there");
}

TEST_CASE("run: interrupted while it writes its output, it leaves no part of it") {
  // Little to compute and 34 MB to write. On a machine that is busy with other things the signal may come
  // when all is written; then it is sent to another run.
  constexpr std::size_t kElements = 32768 * 256;
  const Sandbox box;
  const std::vector<std::string> run = {"run",     gallery_spec("causal"),
                                        "--shape", "heads=32768,kv_heads=1,tokens=1,head_dim=8,value_dim=256",
                                        "--out",   box.path("out.npy")};
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    CAPTURE(signal);
    bool in_time = false;
    for (int attempt = 0; attempt < 20 && !in_time; ++attempt) {
      box.write("out.npy", "what was there");
      const Outcome o = box.interrupt(
          run, [&] { return box.holds_part_of_a_file(); }, signal);
      CHECK((o.exit == 128 + signal || o.exit == 0));
      CHECK(box.count_files() == 1);
      in_time = box.read("out.npy") == "what was there";
      if (!in_time) CHECK(box.read("out.npy").size() > kElements * sizeof(float));  // whole, with its header
    }
    CHECK(in_time);
  }
}

TEST_CASE("run: a signal that is ignored from the start stays ignored") {
  const Sandbox box;
  auto* const before = ::signal(SIGHUP, SIG_IGN);  // what nohup does: the command inherits it
  bool asked = false;
  const Outcome o = box.interrupt(
      {"run", gallery_spec("causal"), "--shape", "tokens=16,head_dim=8"},
      [&] { return std::exchange(asked, true); }, SIGHUP);
  ::signal(SIGHUP, before);
  CHECK(o.exit == 0);
}

}  // namespace
}  // namespace vicinal::testing
