// check, emit, explain, merge, doctor, env, targets and what all verbs share: where output goes, colour,
// help.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <vicinal/vicinal.h>

#include <cmath>

#include "tests/cli/sandbox.h"

namespace vicinal::testing {
namespace {

TEST_CASE("the command: version and help") {
  const Sandbox box;
  const Outcome version = box.run({"--version"});
  CHECK(version.exit == 0);
  CHECK(version.out == fmt::format("vicinal {}\n", vicinal::version()));
  const Outcome help = box.run({"--help"});
  CHECK(help.exit == 0);
  CHECK(help.err.empty());
  CHECK(has(help.out, "Examples:"));
  CHECK(has(help.out, "vicinal run specs/causal.attn"));
  for (const char* verb :
       {"run", "check", "emit", "explain", "bench", "merge", "cache", "doctor", "targets", "env"}) {
    CHECK(has(help.out, verb));
    const Outcome one = box.run({verb, "-h"});
    CHECK(one.exit == 0);
    CHECK(has(one.out, "Usage: "));
  }
}

TEST_CASE("the command: results on standard output, the rest on standard error") {
  const Sandbox box;
  const std::string spec =
      box.write("warns.attn", "attention warns {\n  param unused: int = 3\n  mask = k <= q\n}\n");
  const Outcome loud = box.run({"check", spec}), quiet = box.run({"check", spec, "--quiet"}),
                json = box.run({"check", spec, "--json"});
  CHECK(loud.exit == 0);
  CHECK(has(loud.err, "warning"));
  CHECK(!has(loud.out, "warning"));
  CHECK(has(loud.out, "1 attention block, no errors"));
  CHECK(quiet.exit == 0);
  CHECK(quiet.out.empty());
  CHECK(quiet.err.empty());
  CHECK(json.err.empty());
  // A result stays a result.
  const Outcome run = box.run({"run", spec, "-q", "--shape", "tokens=8,head_dim=8"});
  CHECK(run.exit == 0);
  CHECK(has(run.out, "warns: "));
  CHECK(run.err.empty());
}

TEST_CASE("the command: colour") {
  const Sandbox box;
  const std::string spec = box.write("bad.attn", "attention bad { mask = k <= quary }\n");
  const auto coloured = [&](std::vector<std::string> arguments,
                            std::map<std::string, std::string> environment) {
    arguments.insert(arguments.end(), {"check", spec});
    Given given;
    given.environment = std::move(environment);
    const Outcome o = box.run(arguments, given);
    CHECK(o.exit == 1);
    CHECK(has(o.err, "quary"));
    return has(o.err, "\033[");
  };
  CHECK(!coloured({}, {}));  // standard error is no terminal
  CHECK(coloured({}, {{"CLICOLOR_FORCE", "1"}}));
  CHECK(!coloured({}, {{"CLICOLOR_FORCE", "0"}}));
  CHECK(!coloured({}, {{"CLICOLOR_FORCE", "1"}, {"NO_COLOR", "1"}}));
  CHECK(coloured({}, {{"CLICOLOR_FORCE", "1"}, {"NO_COLOR", ""}}));
  CHECK(coloured({"--color", "always"}, {{"NO_COLOR", "1"}}));
  CHECK(!coloured({"--color", "never"}, {{"CLICOLOR_FORCE", "1"}}));
  CHECK(coloured({"--color=always"}, {}));
}

TEST_CASE("check: several specs, the worst of them decides") {
  const Sandbox box;
  const std::string bad = box.write("bad.attn", "attention bad {\n  mask = k <= quary\n}\n");
  const Outcome good = box.run({"check", gallery_spec("causal"), gallery_spec("gemma2")});
  CHECK(good.exit == 0);
  CHECK(has(good.out, "2 attention blocks, no errors"));
  CHECK(good.err.empty());
  const Outcome mixed = box.run({"check", gallery_spec("causal"), bad});
  CHECK(mixed.exit == 1);
  CHECK(has(mixed.out, "causal.attn: 1 attention block, no errors"));
  CHECK(has(mixed.err, "bad.attn:2:15"));
  CHECK(box.run({"check", bad, box.path("absent.attn")}).exit == 2);
  CHECK(box.run({"check", gallery_spec("sliding_window"), "--param", "window=8"}).exit == 0);
  CHECK(box.run({"check", gallery_spec("sliding_window"), "--param", "width=8"}).exit == 2);
}

TEST_CASE("check --json: each diagnostic says what and where") {
  const Sandbox box;
  const std::string bad = box.write("bad.attn", "attention bad {\n  mask = k <= quary\n}\n");
  const Outcome o = box.run({"check", "--json", bad});
  CHECK(o.exit == 1);
  const nlohmann::json json = nlohmann::json::parse(o.out);
  CHECK(has(json.at("schema").get<std::string>(), "vicinal."));
  const nlohmann::json& diagnostics = json.at("diagnostics");
  REQUIRE(diagnostics.size() == 1);
  CHECK(diagnostics[0].at("name") == "unknown-name");
  CHECK(diagnostics[0].at("level") == "error");
  CHECK(has(diagnostics[0].dump(), "bad.attn"));
  CHECK(has(diagnostics[0].dump(), "quary"));
  const Outcome good = box.run({"check", "--json", gallery_spec("causal")});
  CHECK(good.exit == 0);
  CHECK(nlohmann::json::parse(good.out).at("diagnostics").is_array());
}

TEST_CASE("emit: every stage that needs no NVRTC") {
  const Sandbox box;
  const auto emit = [&](std::string kinds, std::vector<std::string> more = {}) {
    std::vector<std::string> words = {"emit", std::move(kinds), gallery_spec("alibi")};
    words.insert(words.end(), more.begin(), more.end());
    const Outcome o = box.run(words);
    CAPTURE(o.err);
    CHECK(o.exit == 0);
    CHECK(o.err.empty());
    CHECK(!o.out.empty());
    return o.out;
  };
  CHECK(has(emit("tokens"), "slopes"));
  CHECK(has(emit("ast"), "slopes"));
  const std::string ir = emit("ir"), optimized = emit("ir-optimized");
  CHECK(has(ir, "slopes"));
  CHECK(has(optimized, "slopes"));
  CHECK(!emit("ir-after=simplify").empty());
  CHECK(has(emit("passes"), "simplify"));
  CHECK(emit("ir,ir-optimized") == ir + optimized);
  const std::string cuda = emit("cuda");
  CHECK(has(cuda, "#include \"vicinal/kernel.cuh\""));
  CHECK(has(cuda, "extern \"C\""));
  CHECK(!has(cuda, "slopes["));  // no words of the spec in the code
  CHECK(emit("cuda") == cuda);
  CHECK(emit("cuda", {"--head-dim", "64"}) != cuda);
  CHECK(emit("cuda", {"--dtype", "f16"}) != cuda);
  CHECK(emit("cuda", {"--kernel", "reference"}) != cuda);
}

TEST_CASE("emit -o: whole, and never over what is there") {
  const Sandbox box;
  const std::vector<std::string> emit = {"emit", "cuda", gallery_spec("causal"), "-o", box.path("causal.cu")};
  CHECK(box.run(emit).exit == 0);
  const std::string source = box.read("causal.cu");
  CHECK(source == box.run({"emit", "cuda", gallery_spec("causal")}).out);
  CHECK(box.count_files() == 1);

  box.write("causal.cu", "mine");
  const Outcome refused = box.run(emit);
  CHECK(refused.exit == 2);
  CHECK(has(refused.err, "--force"));
  CHECK(box.read("causal.cu") == "mine");
  std::vector<std::string> forced = emit;
  forced.push_back("--force");
  CHECK(box.run(forced).exit == 0);
  CHECK(box.read("causal.cu") == source);
  CHECK(box.run({"emit", "cuda", gallery_spec("causal"), "-o", "/dev/null"}).exit == 0);
}

TEST_CASE("explain mask: counts against closed forms") {
  const Sandbox box;
  const auto counts = [&](std::vector<std::string> more) {
    std::vector<std::string> words = {"explain", "mask", "--json"};
    words.insert(words.end(), more.begin(), more.end());
    const Outcome o = box.run(words);
    CAPTURE(o.err);
    CHECK(o.exit == 0);
    return o.json("vicinal.explain.mask.v1");
  };
  for (const int n : {1, 7, 100}) {
    const auto causal = counts({gallery_spec("causal"), "--shape", fmt::format("tokens={},head_dim=8", n)});
    CHECK(causal.at("kept_pairs") == n * (n + 1) / 2);
    CHECK(causal.at("fewest_keys") == 1);
    CHECK(causal.at("most_keys") == n);
    CHECK(causal.at("empty_rows") == 0);
  }
  // A window is moved to fit at the border: every pixel has all of its 7 x 7 neighbours.
  const auto grid = counts({gallery_spec("neighborhood_2d"), "--grid", "y=8,x=11"});
  CHECK(grid.at("queries") == 88);
  CHECK(grid.at("kept_pairs") == 88 * 49);
  CHECK(grid.at("fewest_keys") == 49);
  const auto none = counts({gallery_spec("causal"), "--shape", "tokens=0,head_dim=8"});
  CHECK(none.at("kept_pairs") == 0);
  CHECK(none.at("density") == 0);
}

TEST_CASE("explain mask: pictures") {
  const Sandbox box;
  Outcome o = box.run({"explain", "mask", gallery_spec("causal"), "--shape", "tokens=2,head_dim=8"});
  CHECK(o.exit == 0);
  CHECK(has(o.out, "│██  │\n│████│\n"));
  CHECK(has(o.out, "3 of 4 pairs kept"));

  o = box.run({"explain", "mask", gallery_spec("neighborhood_2d"), "--grid", "y=9,x=9", "--query", "0,4"});
  CHECK(o.exit == 0);
  CHECK(has(o.out, "│  ██████████████  │\n"));
  CHECK(has(o.out, "query 0,4 keeps 49 of 81 keys"));
  o = box.run(
      {"explain", "mask", gallery_spec("neighborhood_2d"), "--grid", "y=9,x=9", "--query", "0,4", "--json"});
  CHECK(o.json("vicinal.explain.query.v1").at("kept") == 49);

  o = box.run({"explain", "mask", gallery_spec("causal"), "--shape", "tokens=20,head_dim=8", "--png",
               box.path("mask.png")});
  if (o.exit == 3) {
    MESSAGE("skipped: this program was built without libpng");
    return;
  }
  CHECK(o.exit == 0);
  CHECK(box.read("mask.png").starts_with("\x89PNG\r\n\x1a\n"));
  CHECK(box.count_files() == 1);
}

TEST_CASE("explain: scores and diagnostics") {
  const Sandbox box;
  const Outcome score = box.run({"explain", "score", gallery_spec("alibi")});
  CHECK(score.exit == 0);
  CHECK(has(score.out, "# varies with "));
  const Outcome name = box.run({"explain", "unknown-name"});
  CHECK(name.exit == 0);
  CHECK(name.out.starts_with("unknown-name: "));
}

TEST_CASE("merge: two halves of the keys are the whole") {
  const Sandbox box;
  constexpr std::int64_t kTokens = 6, kKeys = 10, kDim = 8;
  const std::string spec = box.write("all.attn", "attention all { score = score }\n");
  const auto wave = [](std::int64_t i) { return std::sin(0.7 * static_cast<double>(i)); };
  const std::string q = box.write_npy("q.npy", f32, {1, 1, kTokens, kDim}, wave);
  const auto part = [&](const std::string& name, std::int64_t first, std::int64_t keys) {
    const std::vector<std::int64_t> shape = {1, 1, keys, kDim};
    const auto at = [&](double step) {
      return [=](std::int64_t i) { return std::cos(step * static_cast<double>(i + first * kDim)); };
    };
    const Outcome o = box.run({"run", spec, "--q", q, "--k", box.write_npy("k.npy", f32, shape, at(0.3)),
                               "--v", box.write_npy("v.npy", f32, shape, at(0.9)), "--out",
                               box.path(name + "_out.npy"), "--lse", box.path(name + "_lse.npy")});
    CAPTURE(o.err);
    REQUIRE(o.exit == 0);
  };
  part("whole", 0, kKeys);
  part("head", 0, 4);
  part("tail", 4, kKeys - 4);
  const std::vector<std::string> merge = {"merge",
                                          "--parts",
                                          box.path("head_out.npy"),
                                          box.path("tail_out.npy"),
                                          "--lses",
                                          box.path("head_lse.npy"),
                                          box.path("tail_lse.npy"),
                                          "--out",
                                          box.path("out.npy"),
                                          "--lse",
                                          box.path("lse.npy")};
  const Outcome o = box.run(merge);
  CAPTURE(o.err);
  REQUIRE(o.exit == 0);
  const auto compare = [&](const char* got, const char* want, const std::vector<std::int64_t>& shape) {
    const auto a = box.read_npy(got, shape), b = box.read_npy(want, shape);
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i] == doctest::Approx(b[i]).epsilon(1e-6));
  };
  compare("out.npy", "whole_out.npy", {1, 1, kTokens, kDim});
  compare("lse.npy", "whole_lse.npy", {1, 1, kTokens});

  CHECK(box.run({"merge", "--parts", box.path("head_out.npy"), "--lses", box.path("head_lse.npy"),
                 box.path("tail_lse.npy"), "--out", box.path("x.npy")})
            .exit == 2);
  CHECK(box.run({"merge", "--parts", box.path("head_out.npy"), "--lses", box.path("head_out.npy"), "--out",
                 box.path("x.npy")})
            .exit != 0);
  CHECK(!box.holds("x.npy"));
}

TEST_CASE("doctor, env and targets") {
  const Sandbox box;
  const Outcome doctor = box.run({"doctor"});
  CHECK(doctor.exit == 0);
  CHECK(has(doctor.out, "--   driver"));
  const nlohmann::json findings = box.run({"doctor", "--json"}).json("vicinal.doctor.v1").at("findings");
  bool found = false;
  for (const auto& f : findings) {
    CHECK((f.at("good") == true || !f.at("fix").get<std::string>().empty()));
    found = found || (f.at("what") == "driver" && f.at("good") == false);
  }
  CHECK(found);

  // An option goes before the environment, which goes before the default.
  Given given;
  given.environment = {{"VICINAL_CACHE", "memory"}};
  const auto cache_mode = [&](const std::vector<std::string>& words, const Given& with) {
    const nlohmann::json env = box.run(words, with).json("vicinal.env.v1");
    for (const auto& row : env.at("settings"))
      if (row.at("name") == "cache")
        return fmt::format("{} {}", row.at("value").get<std::string>(), row.at("origin").get<std::string>());
    return std::string();
  };
  CHECK(cache_mode({"env", "--json"}, {}) == "on default");
  CHECK(cache_mode({"env", "--json"}, given) == "memory environment");
  CHECK(cache_mode({"env", "--json", "--no-cache"}, given) == "off option");
  CHECK(has(box.run({"env"}).out, "VICINAL_CACHE_DIR"));

  const Outcome targets = box.run({"targets", "--json"});
  if (targets.exit == 0)
    CHECK(!targets.json("vicinal.targets.v1").at("targets").empty());
  else
    CHECK(targets.exit == 3);
  Given nowhere;
  nowhere.environment = {{"VICINAL_NVRTC", box.path("nothing")}};
  const Outcome without = box.run({"targets"}, nowhere);
  CHECK(without.exit == 3);
  CHECK(has(without.err, "help: "));
}

}  // namespace
}  // namespace vicinal::testing
