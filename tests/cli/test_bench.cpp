// `vicinal bench` on a machine without a GPU: what it reports, and what it refuses. Times are a machine's
// own, so only what must hold of any of them is checked.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tests/cli/sandbox.h"

namespace vicinal::testing {
namespace {

const std::vector<std::string> kSmall = {"--shape", "batch=2,heads=3,tokens=16,head_dim=8",
                                         "--compile-repeat", "2"};

std::vector<std::string> bench(const std::string& spec, const std::vector<std::string>& more = {}) {
  std::vector<std::string> words = {"bench", spec};
  words.insert(words.end(), kSmall.begin(), kSmall.end());
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

void check_spread(const nlohmann::json& document, const char* name, int count) {
  CAPTURE(name);
  const nlohmann::json& spread = document.at(name);
  const double median = spread.at("median"), low = spread.at("quartile_low"),
               high = spread.at("quartile_high");
  CHECK(low >= 0);
  CHECK(median >= low);
  CHECK(high >= median);
  CHECK(spread.at("count") == count);
  CHECK(spread.at("unit") == "ms");
}

TEST_CASE("bench: the report as text") {
  const Sandbox box;
  const Outcome o = box.run(bench(gallery_spec("causal")));
  CAPTURE(o.err);
  CHECK(o.exit == 0);
  CHECK(has(o.out, "causal: batch 2, heads 3, kv_heads 3, tokens 16, head_dim 8, f32, bhnd\n"));
  for (const char* row : {"front_end", "emit", "forward", "rate"})
    CHECK(has(o.out, fmt::format("\n  {} ", row)));
  CHECK(has(o.out, "over 816 kept pairs"));  // 2 * 3 * (1 + ... + 16)
  CHECK(o.err.empty());
  CHECK(box.count_files() == 0);
}

TEST_CASE("bench --json") {
  const Sandbox box;
  const Outcome o =
      box.run(bench(gallery_spec("causal"), {"--json", "--arch", "sm_80", "--backend", "interpreter"}));
  CAPTURE(o.err);
  REQUIRE(o.exit == 0);
  const nlohmann::json json = o.json("vicinal.bench.v1");
  CHECK(json.at("spec") == "causal");
  CHECK(json.at("problem") == "batch 2, heads 3, kv_heads 3, tokens 16, head_dim 8, f32, bhnd");
  CHECK(json.at("path") == "interpreter");
  check_spread(json, "front_end", 2);
  check_spread(json, "emit", 2);
  check_spread(json, "forward", 1);  // the interpreter runs once
  CHECK(json.at("kept_pairs") == 816);
  // 2 * (8 + 8) operations for each pair, in units of 1e12 a second.
  const double milliseconds = json.at("forward").at("median");
  CHECK(json.at("tflops").get<double>() == doctest::Approx(816 * 32 / milliseconds * 1e-9));

  // Compiling is timed where there is NVRTC, and named as missing where there is none.
  CHECK(json.contains("nvrtc_missing") != json.contains("nvrtc_cold_sm_80"));
  if (json.contains("nvrtc_missing")) {
    CHECK(has(json.at("nvrtc_missing").get<std::string>(), "NVRTC"));
    MESSAGE("skipped: times of NVRTC, which is not here");
    return;
  }
  check_spread(json, "nvrtc_cold_sm_80", 2);
  check_spread(json, "memory_hit", 200);
  check_spread(json, "disk_hit", 2);
}

TEST_CASE("bench: what is benchmarked follows the options") {
  const Sandbox box;
  // Every query sees 8 of 16 keys along the axis, and each of the 4 context keys.
  const std::string spec = box.write("window.attn", "attention window { axis t { window = 8 }\n context }\n");
  const Outcome o =
      box.run({"bench", spec, "--grid", "t=16", "--shape", "heads=2,head_dim=8,value_dim=16,context=4",
               "--backend", "interpreter", "--compile-repeat", "1", "--dtype", "f16", "--json"});
  CAPTURE(o.err);
  REQUIRE(o.exit == 0);
  const nlohmann::json json = o.json("vicinal.bench.v1");
  CHECK(has(json.at("problem").get<std::string>(), "context 4, head_dim 8, value_dim 16, f16"));
  check_spread(json, "front_end", 1);
  CHECK(json.at("kept_pairs") == 2 * 16 * (8 + 4));
  CHECK(json.at("tflops").get<double>() ==
        doctest::Approx(2.0 * 2 * 16 * 12 * (8 + 16) / json.at("forward").at("median").get<double>() * 1e-9));
}

TEST_CASE("bench: without NVRTC the rest is timed") {
  const Sandbox box;
  Given given;
  given.environment["VICINAL_NVRTC"] = box.path("no-nvrtc-here");
  const Outcome text = box.run(bench(gallery_spec("causal")), given);
  CHECK(text.exit == 0);
  CHECK(has(text.out, "nvrtc: "));
  CHECK(has(text.out, "\n  forward "));
  const Outcome data = box.run(bench(gallery_spec("causal"), {"--json", "--backend", "interpreter"}), given);
  CHECK(data.exit == 0);
  const nlohmann::json json = data.json("vicinal.bench.v1");
  CHECK(json.contains("nvrtc_missing"));
  CHECK(!json.contains("disk_hit"));
  check_spread(json, "forward", 1);
}

TEST_CASE("bench: code for the CPU") {
  const Sandbox box;
  const Outcome o = box.run(bench(gallery_spec("causal"), {"--json", "--backend", "cpu", "--repeat", "3"}));
  CAPTURE(o.err);
  REQUIRE(o.exit == 0);
  const nlohmann::json json = o.json("vicinal.bench.v1");
  if (json.at("path") != "cpu/jit") {
    MESSAGE("skipped: there is no code generator for the CPU");
    return;
  }
  check_spread(json, "llvm_build", 2);
  check_spread(json, "llvm_compile", 2);
  check_spread(json, "forward", 3);
  CHECK(!json.contains("emit"));
}

TEST_CASE("bench: mistakes") {
  const Sandbox box;
  const std::string causal = gallery_spec("causal"),
                    wrong = box.write("wrong.attn", "attention wrong { mask = k <= quary }\n");
  struct Mistake {
    std::vector<std::string> arguments;
    int exit;
    const char* says;
  };
  for (const Mistake& m : std::vector<Mistake>{
           {{"bench"}, 2, "spec"},
           {{"bench", box.path("absent.attn")}, 2, "there is no such file"},
           {{"bench", wrong}, 1, "unknown-name"},
           {bench(causal, {"--frobnicate"}), 2, "--frobnicate"},
           {bench(causal, {"--backend", "tpu"}), 2, "tpu"},
           {bench(causal, {"--repeat", "0"}), 2, "--repeat"},
           {bench(causal, {"--compile-repeat", "0"}), 2, "--compile-repeat"},
           {bench(causal, {"--compile-repeat", "many"}), 2, "--compile-repeat"},
           {bench(causal, {"--kernel", "fastest"}), 2, "fastest"},
           {bench(causal, {"--param", "depth=3"}), 2, "depth"},
           {{"bench", causal, "--shape", "tokens=8,head_dim=7"}, 1, "multiple of 8"},
           {{"bench", gallery_spec("neighborhood_2d"), "--grid", "y=5,x=9"}, 1, "window"},
           {bench(causal, {"--backend", "cuda"}), 3, "driver"},
       }) {
    const Outcome o = box.run(m.arguments);
    CAPTURE(fmt::format("{}", fmt::join(m.arguments, " ")));
    CAPTURE(o.err);
    CAPTURE(o.out);
    CHECK(o.exit == m.exit);
    CHECK(has(o.err, m.says));
    CHECK(o.out.empty());
  }
}

}  // namespace
}  // namespace vicinal::testing
