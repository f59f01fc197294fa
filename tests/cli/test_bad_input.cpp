// Every kind of mistake has its exit code, says what is wrong on standard error, and writes nothing.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/cli/sandbox.h"

namespace vicinal::testing {
namespace {

struct Mistake {
  std::vector<std::string> arguments;
  int exit;
  const char* says;
};

void check_mistake(const Sandbox& box, const Mistake& mistake) {
  const std::size_t files = box.count_files();
  const Outcome o = box.run(mistake.arguments);
  CAPTURE(fmt::format("{}", fmt::join(mistake.arguments, " ")));
  CAPTURE(o.err);
  CHECK(o.exit == mistake.exit);
  CHECK(has(o.err, mistake.says));
  CHECK(o.out.empty());
  CHECK(box.count_files() == files);
}

TEST_CASE("bad input: specs") {
  const Sandbox box;
  const std::string malformed = box.write("malformed.attn", "attention broken { mask = k <= }\n"),
                    unknown = box.write("unknown.attn", "attention broken { mask = k <= quary }\n"),
                    empty = box.write("empty.attn", ""),
                    binary = box.write("binary.attn", std::string_view("\x7f"
                                                                       "ELF\0\xff",
                                                                       6));
  for (const char* verb : {"run", "check"}) {
    check_mistake(box, {{verb, malformed}, 1, "malformed.attn:1:"});
    check_mistake(box, {{verb, unknown}, 1, "unknown-name"});
    check_mistake(box, {{verb, binary}, 1, "binary.attn:1:1"});
    check_mistake(box, {{verb, box.path("absent.attn")}, 2, "there is no such file"});
    check_mistake(box, {{verb, box.path("")}, 2, "folder"});
  }
  CHECK(box.run({"run", empty}).exit != 0);
  if (::geteuid() != 0) {  // root reads everything
    ::chmod(malformed.c_str(), 0);
    check_mistake(box, {{"run", malformed}, 2, "cannot be read"});
  }
}

TEST_CASE("bad input: problems that a spec does not allow") {
  const Sandbox box;
  const std::string causal = gallery_spec("causal"), grid = gallery_spec("neighborhood_2d");
  for (const Mistake& m : std::vector<Mistake>{
           {{"run", grid, "--grid", "y=5,x=9"}, 1, "window"},
           {{"run", causal, "--shape", "head_dim=7,tokens=8"}, 1, "multiple of 8"},
           {{"run", causal, "--shape", "value_dim=12,tokens=8"}, 1, "multiple of 8"},
           {{"run", causal, "--shape", "heads=3,kv_heads=2,tokens=8"}, 1, "heads"},
           {{"run", causal, "--shape", "context=3,tokens=8"}, 1, "context"},
           {{"emit", "cuda", causal, "--head-dim", "7"}, 1, "multiple of 8"},
           {{"run", gallery_spec("sliding_window"), "--param", "window=1.5"}, 2, "window"},
           {{"run", gallery_spec("sigmoid_attention"), "--lse", box.path("lse.npy")}, 1, "lse"},
       })
    check_mistake(box, m);
}

TEST_CASE("bad input: the command line") {
  const Sandbox box;
  const std::string causal = gallery_spec("causal"), grid = gallery_spec("neighborhood_2d"),
                    alibi = gallery_spec("alibi");
  for (const Mistake& m : std::vector<Mistake>{
           {{}, 2, "subcommand"},
           {{"fly"}, 2, "fly"},
           {{"run"}, 2, "spec"},
           {{"run", causal, "--frobnicate"}, 2, "--frobnicate"},
           {{"run", causal, "--param", "depth=3"}, 2, "depth"},
           {{"run", causal, "--param", "depth"}, 2, "NAME=VALUE"},
           {{"run", gallery_spec("sliding_window"), "--param", "window=1", "--param", "window=2"},
            2,
            "twice"},
           {{"run", causal, "--dynamic", "depth"}, 2, "depth"},
           {{"run", alibi, "--input", "slope=" + box.path("x.npy")}, 2, "no input `slope`"},
           {{"run", alibi, "--input", "slopes"}, 2, "NAME=FILE"},
           {{"run", causal, "--shape", "tokens"}, 2, "NAME=NUMBER"},
           {{"run", causal, "--shape", "tokens=-1"}, 2, "NAME=NUMBER"},
           {{"run", causal, "--shape", "tokens=8x"}, 2, "NAME=NUMBER"},
           {{"run", causal, "--shape", "tokens=99999999999999999999"}, 2, "NAME=NUMBER"},
           {{"run", causal, "--shape", "tokens=8,tokens=9"}, 2, "twice"},
           {{"run", causal, "--shape", "token=8"}, 2, "no `token`"},
           {{"run", causal, "--grid", "y=8"}, 2, "no such axis"},
           {{"run", grid, "--grid", "y=8"}, 2, "leaves out axis `x`"},
           {{"run", grid, "--grid", "y8,x=8"}, 2, "NAME=NUMBER"},
           {{"run", grid, "--shape", "tokens=64"}, 2, "--grid"},
           {{"run", grid, "--grid", "y=8,x=8", "--shape", "tokens=64"}, 2, "exclude"},
           {{"run", grid, "--shape", "keys=64"}, 2, "keys"},
           {{"run", causal, "--tile", "16"}, 2, "--tile 64,64"},
           {{"run", causal, "--tile", "16,0"}, 2, "--tile 64,64"},
           {{"run", causal, "--tile", "16,16,16"}, 2, "--tile 64,64"},
           {{"run", causal, "--layout", "nhd"}, 2, "nhd"},
           {{"run", causal, "--dtype", "f8"}, 2, "f8"},
           {{"run", causal, "--backend", "tpu"}, 2, "tpu"},
           {{"run", causal, "--q", box.path("q.npy")}, 2, "go together"},
           {{"run", causal, "--cache", "sometimes"}, 2, "refresh"},
           {{"emit", "poetry", causal}, 2, "`poetry` cannot be emitted"},
           {{"emit", "ir-after=lunch", causal}, 2, "simplify"},
           {{"explain", "no-such-diagnostic"}, 2, "unknown-name"},
           {{"explain", "mask"}, 2, "needs a spec"},
           {{"explain", "mask", causal, "--head", "99"}, 2, "--head"},
           {{"explain", "mask", grid, "--query", "3"}, 2, "coordinates"},
           {{"explain", "mask", grid, "--query", "3,99"}, 2, "not a place"},
           {{"explain", "mask", grid, "--query", "3,x"}, 2, "not a place"},
           {{"explain", "mask", grid, "--query", "3,4x"}, 2, "not a place"},
       })
    check_mistake(box, m);
}

TEST_CASE("bad input: sizes beyond any memory are a limit, not a crash") {
  const Sandbox box;
  const std::string causal = gallery_spec("causal"), grid = gallery_spec("neighborhood_2d");
  for (const Mistake& m : std::vector<Mistake>{
           {{"run", causal, "--shape", "tokens=9223372036854775807"}, 5, "memory"},
           {{"run", causal, "--shape", "batch=4294967296,heads=4294967296,tokens=8"}, 5, "memory"},
           {{"run", grid, "--grid", "y=4294967296,x=4294967296"}, 5, "memory"},
           {{"explain", "mask", causal, "--shape", "tokens=1000000,heads=1,head_dim=8"}, 5, "too many"},
       })
    check_mistake(box, m);
}

TEST_CASE("bad input: tensor files") {
  const Sandbox box;
  const std::vector<std::int64_t> shape = {1, 2, 8, 8};
  const auto ones = [](std::int64_t) { return 1.0; };
  const std::string good = box.write_npy("good.npy", f32, shape, ones), bytes = box.read("good.npy"),
                    causal = gallery_spec("causal"), alibi = gallery_spec("alibi");
  const auto header = [](std::string_view text) {
    std::string file = "\x93NUMPY";
    file += '\1';
    file += '\0';
    file += static_cast<char>(text.size() & 0xff);
    file += static_cast<char>(text.size() >> 8);
    return file + std::string(text);
  };
  const auto damaged = [&](std::string_view name, const std::string& content, const char* says) {
    check_mistake(box, {{"run", causal, "--q", box.write(name, content), "--k", good, "--v", good}, 2, says});
  };
  damaged("cut.npy", bytes.substr(0, bytes.size() - 1), "truncated");
  damaged("cut_header.npy", bytes.substr(0, 20), "cut_header.npy");
  damaged("nothing.npy", "", "nothing.npy");
  damaged("text.npy", "1 2 3\n", "text.npy");
  damaged("more.npy", bytes + "x", "after the end");
  damaged("huge_header.npy", std::string("\x93NUMPY\2\0\xff\xff\xff\xff", 12), "huge_header.npy");
  damaged("huge.npy",
          header("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4, 8), }\n"),
          "too large");
  damaged("fortran.npy", header("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2, 8, 8), }\n"),
          "ortran");
  damaged("object.npy", header("{'descr': '|O', 'fortran_order': False, 'shape': (1, 2, 8, 8), }\n"),
          "object.npy");

  const auto run = [&](const std::string& spec, const std::string& q, std::vector<std::string> more = {}) {
    std::vector<std::string> words = {"run", spec, "--q", q, "--k", good, "--v", good};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  const std::string whole = box.write_npy("whole.npy", DType::i32, shape, ones),
                    rank3 = box.write_npy("rank3.npy", f32, {2, 8, 8}, ones),
                    dim7 = box.write_npy("dim7.npy", f32, {1, 2, 8, 7}, ones),
                    slopes = box.write_npy("slopes.npy", f32, {2}, ones),
                    three = box.write_npy("three.npy", f32, {3}, ones),
                    matrix = box.write_npy("matrix.npy", f32, {2, 1}, ones),
                    document = box.write_npy("document.npy", DType::i64, {8}, ones),
                    wide =
                        box.write_npy("wide.npy", DType::i64, {1}, [](std::int64_t) { return 4294967296.0; });
  for (const Mistake& m : std::vector<Mistake>{
           {run(causal, box.path("absent.npy")), 2, "absent.npy"},
           {run(causal, whole), 1, "i32"},
           {run(causal, rank3), 1, "4 dimensions"},
           {{"run", causal, "--q", dim7, "--k", dim7, "--v", dim7}, 1, "multiple of 8"},
           {run(causal, good, {"--shape", "tokens=8"}), 2, "exclude"},
           {run(alibi, good), 1, "slopes"},
           {run(alibi, good, {"--input", "slopes=" + box.path("absent.npy")}), 2, "absent.npy"},
           {run(alibi, good, {"--input", "slopes=" + three}), 1, "slopes"},
           {run(alibi, good, {"--input", "slopes=" + matrix}), 1, "slopes"},
           {run(alibi, good, {"--input", "slopes=" + document}), 1, "slopes"},
           {run(gallery_spec("document"), good,
                {"--input", "document=" + document, "--input", "start=" + wide}),
            2, "32 bits"},
       })
    check_mistake(box, m);
  CHECK(box.run(run(alibi, good, {"--input", "slopes=" + slopes})).exit == 0);
}

TEST_CASE("bad input: outputs that cannot be written are found before any work") {
  const Sandbox box;
  // This work alone would take minutes.
  const std::vector<std::string> run = {"run", gallery_spec("causal"), "--shape",
                                        "heads=64,tokens=50000,head_dim=256"};
  for (const char* option : {"--out", "--lse", "--scores"}) {
    std::vector<std::string> words = run;
    words.insert(words.end(), {option, box.path("no/such/folder/x.npy")});
    check_mistake(box, {words, 2, "no/such/folder"});
  }
  std::vector<std::string> folder = run;
  folder.insert(folder.end(), {"--out", box.path("")});
  check_mistake(box, {folder, 2, "cannot write"});
  check_mistake(box,
                {{"explain", "mask", gallery_spec("causal"), "--png", box.path("no/x.png")}, 2, "no/x.png"});
  check_mistake(box, {{"emit", "cuda", gallery_spec("causal"), "-o", box.path("no/x.cu")}, 2, "no/x.cu"});
}

TEST_CASE("bad input: standard output that takes nothing is an error") {
  const Sandbox box;
  Given full;
  full.standard_output = "/dev/full";
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"emit", "cuda", gallery_spec("causal")},
        {"env"},
        {"check", gallery_spec("causal")}}) {
    const Outcome o = box.run(words, full);
    CHECK(o.exit == 2);
    CHECK(!o.err.empty());
  }
}

}  // namespace
}  // namespace vicinal::testing
