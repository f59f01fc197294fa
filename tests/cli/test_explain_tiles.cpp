// explain tiles: figures worked out by hand, pictures, mistakes.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <chrono>

#include "tests/cli/sandbox.h"

namespace vicinal::testing {
namespace {

using Words = std::vector<std::string>;

Words tiles(Words more) {
  more.insert(more.begin(), {"explain", "tiles"});
  return more;
}

std::string text_of(const Sandbox& box, const Words& words) {
  const Outcome o = box.run(tiles(words));
  CAPTURE(o.err);
  CHECK(o.exit == 0);
  CHECK(o.err.empty());
  return o.out;
}

nlohmann::json json_of(const Sandbox& box, Words words) {
  words.emplace_back("--json");
  const Outcome o = box.run(tiles(words));
  CAPTURE(o.err);
  CHECK(o.exit == 0);
  CHECK(!has(o.out, "┌"));
  return o.json("vicinal.explain.tiles.v2");
}

struct Expected {
  int rows, all, visited, full, useful;
};
void check_figures(const nlohmann::json& json, const Expected& e) {
  CHECK(json.at("rows") == e.rows);
  const nlohmann::json& tiles = json.at("tiles");
  CHECK(tiles.at("all") == e.all);
  CHECK(tiles.at("visited") == e.visited);
  CHECK(tiles.at("full") == e.full);
  CHECK(tiles.at("partial") == e.visited - e.full);
  CHECK(tiles.at("skipped") == e.all - e.visited);
  CHECK(json.at("scores").at("useful") == e.useful);
}

TEST_CASE("explain tiles: causal") {
  const Sandbox box;
  const Words words = {gallery_spec("causal"), "--shape", "batch=3,heads=2,head_dim=8,tokens=8", "--tile",
                       "4/2"};
  // Queries 0 to 3 see some of keys 0 to 3; queries 4 to 7 see all of these and some of keys 4 to 7.
  const nlohmann::json json = json_of(box, words);
  check_figures(json, {.rows = 2, .all = 8, .visited = 6, .full = 2, .useful = 36});
  CHECK(json.at("owner") == "queries");
  CHECK(json.at("context_rows") == 0);
  CHECK(json.at("tile").dump() == R"({"keys":[2],"queries":[4],"text":"4/2"})");
  CHECK(json.at("chosen") == false);
  CHECK(json.at("alternatives").empty());
  CHECK(json.at("scores").at("computed") == 6 * 8);
  CHECK(json.at("scores").at("waste") == doctest::Approx(48.0 / 36));
  // Two products of 8 channels for a score, of 6 batches and heads.
  CHECK(json.at("forward_flops").at("computed") == 6 * 48 * 32);
  CHECK(json.at("forward_flops").at("useful") == 6 * 36 * 32);
  CHECK(json.at("speedup_bound") == doctest::Approx(8.0 / 6));
  // A run of queries 0 to 3, two of queries 4 to 7, 8 bytes each, and three starts of 4.
  const nlohmann::json& plan = json.at("plan");
  CHECK(plan.at("kind") == "list");
  CHECK(plan.at("runs") == 3);
  CHECK(plan.at("bytes") == 36);
  CHECK(plan.at("depends_on_data") == false);
  CHECK(plan.at("inputs").empty());
  CHECK(plan.at("ms") >= 0);
  CHECK(json.at("slices").dump() == R"({"batches":1,"count":1,"heads":1,"heads_per_slice":2})");
  CHECK(json.at("batch") == 0);
  CHECK(json.at("head") == 0);
  CHECK(!json.contains("row"));

  const std::string text = text_of(box, words);
  CHECK(has(text, "causal: batch 3, heads 2, kv_heads 2, tokens 8, head_dim 8, f32, bhnd\n"));
  CHECK(has(text, "tiles of 4 queries and 2 keys, as asked\n"));
  CHECK(has(text, "6 visited of 8: 2 full, 4 partial; 2 skipped\n"));
  CHECK(has(text, "48 computed, 36 useful: 1.33 times what is needed\n"));
  CHECK(has(text, "9216 FLOP computed, 6912 FLOP useful"));
  CHECK(has(text, "1.33 at most"));
  CHECK(has(text, "a list of 3 runs, 36 bytes; made in "));
  CHECK(has(text, "one for all batches and heads"));
  CHECK(has(text, "┌────────┐\n│░░░░    │\n│████░░░░│\n└────────┘\n"));
}

TEST_CASE("explain tiles: a sequence of its own tile shape, small and large") {
  const Sandbox box;
  const nlohmann::json small = json_of(box, {gallery_spec("causal")});
  CHECK(small.at("tile").at("text") == "64/64");
  CHECK(small.at("chosen") == true);
  CHECK(has(text_of(box, {gallery_spec("causal")}), "tiles of 64 queries and 64 keys, the default\n"));
  // 782 tiles a side: the last, of 16 tokens, is cut.
  constexpr std::int64_t n = 50000, side = 782;
  const nlohmann::json large = json_of(box, {gallery_spec("causal"), "--shape", "tokens=50000"});
  CHECK(large.at("tiles").at("visited") == side * (side + 1) / 2);
  CHECK(large.at("tiles").at("full") == side * (side - 1) / 2);
  CHECK(large.at("scores").at("useful") == n * (n + 1) / 2);
  // A picture of 782 tiles has a cell for 32 x 32 of them, of which those on the diagonal are mixed.
  const std::string text = text_of(box, {gallery_spec("causal"), "--shape", "tokens=50000"});
  CHECK(has(text, "32 x 32 tiles a cell"));
  CHECK(has(text, "│████▒▒  "));
}

TEST_CASE("explain tiles: tensors that no memory holds") {
  const Sandbox box;
  // 32 TiB in each of q, k and v.
  const std::string shape = "batch=1024,heads=64,tokens=1048576,head_dim=128";
  constexpr std::int64_t side = 16384;
  for (const std::string spec : {"causal", "alibi", "document", "neighborhood_1d"}) {
    CAPTURE(spec);
    const auto start = std::chrono::steady_clock::now();
    const nlohmann::json json = json_of(box, {gallery_spec(spec), "--shape", shape});
    CHECK(json.at("rows") == side);
    if (spec == "causal") CHECK(json.at("tiles").at("visited") == side * (side + 1) / 2);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    CHECK(took.count() < 20);
  }
}

TEST_CASE("explain tiles: a count that would take too long is left out") {
  const Sandbox box;
  const Words words = {gallery_spec("dense_mask"), "--shape", "tokens=2048,heads=1,head_dim=8"};
  const nlohmann::json json = json_of(box, words);
  CHECK(json.at("tiles").at("partial") == 32 * 32);
  CHECK(json.at("scores").at("useful").is_null());
  CHECK(json.at("scores").at("waste").is_null());
  CHECK(json.at("forward_flops").at("useful").is_null());
  CHECK(has(text_of(box, words), "4.19 M computed; too many to count the useful ones\n"));
}

TEST_CASE("explain tiles: documents") {
  const Sandbox box;
  const std::string spec = box.write("packed.attn",
                                     "attention packed {\n  input document: int[tokens]\n"
                                     "  mask = k <= q and document[q] == document[k]\n}\n");
  // Tokens 0 to 4 and tokens 5 to 11.
  const std::string input =
      box.write_npy("document.npy", DType::i32, {12}, [](std::int64_t i) { return i < 5 ? 3.0 : 4.0; });
  const Words words = {spec,     "--shape", "tokens=12,heads=1,head_dim=8", "--input", "document=" + input,
                       "--tile", "2/2"};
  const nlohmann::json json = json_of(box, words);
  check_figures(json, {.rows = 6, .all = 36, .visited = 15, .full = 4, .useful = 5 * 6 / 2 + 7 * 8 / 2});
  const nlohmann::json& plan = json.at("plan");
  CHECK(plan.at("runs") == 1 + 2 + 1 + 1 + 3 + 3);
  CHECK(plan.at("bytes") == 11 * 8 + 7 * 4);
  CHECK(plan.at("depends_on_data") == true);
  CHECK(plan.at("inputs") == nlohmann::json::array({"document"}));
  const std::string text = text_of(box, words);
  CHECK(has(text, "reads document: to be made again when it changes\n"));
  CHECK(has(text,
            "│░░          │\n"
            "│██░░        │\n"
            "│░░░░░░      │\n"
            "│    ░░░░    │\n"
            "│    ░░██░░  │\n"
            "│    ░░████░░│\n"));

  // Made up: eight documents of eight tokens, each a tile on the diagonal, a full one and another.
  const Words gallery = {gallery_spec("document"), "--shape", "tokens=64,head_dim=8", "--tile", "4/4"};
  check_figures(json_of(box, gallery), {.rows = 16, .all = 256, .visited = 24, .full = 8, .useful = 8 * 36});
  CHECK(has(text_of(box, gallery), "input document: int[64] is made up"));
  CHECK(has(text_of(box, gallery), "reads document, start: to be made again when they change\n"));
}

TEST_CASE("explain tiles: a mask for each batch") {
  const Sandbox box;
  const std::string prefix =
      box.write_npy("prefix.npy", DType::i32, {2}, [](std::int64_t b) { return b == 0 ? 0.0 : 8.0; });
  const Words words = {gallery_spec("prefix_lm"),
                       "--shape",
                       "batch=2,heads=4,tokens=8,head_dim=8",
                       "--input",
                       "prefix=" + prefix,
                       "--tile",
                       "4/4"};
  // Batch 0 is causal: 3 of 4 tiles, 1 of them full. Batch 1 sees all.
  const nlohmann::json json = json_of(box, words);
  check_figures(json, {.rows = 4, .all = 8, .visited = 7, .full = 5, .useful = 36 + 64});
  CHECK(json.at("slices").at("count") == 2);
  CHECK(json.at("slices").at("batches") == 2);
  CHECK(json.at("forward_flops").at("useful") == 4 * 100 * 32);
  CHECK(has(text_of(box, words), "│░░  │\n│██░░│\n"));
  Words second = words;
  second.insert(second.end(), {"--batch", "1", "--head", "3"});
  CHECK(has(text_of(box, second), "batch 1, head 3: "));
  CHECK(has(text_of(box, second), "│████│\n│████│\n"));
  CHECK(has(text_of(box, second), "2, one for each of 2 batches; the figures are their sums\n"));
}

TEST_CASE("explain tiles: neighborhoods") {
  const Sandbox box;
  const std::string spec =
      box.write("near.attn", "attention near {\n  axis y { window = 3 }\n  axis x { window = 3 }\n}\n");
  const Words words = {spec, "--grid", "y=6,x=8", "--tile", "2x2/2x2"};
  // Two queries reach three keys at a border, of which they share all, and else four, of which they share
  // two. From where these start, that is two tiles of two keys: at a border the first is full, the second
  // cut. Along y there are 3 rows, 6 tiles and 2 full ones; along x 4, 8 and 2.
  const nlohmann::json json = json_of(box, words);
  check_figures(json, {.rows = 12, .all = 144, .visited = 48, .full = 4, .useful = 48 * 9});
  CHECK(json.at("plan").at("kind") == "formula");
  CHECK(json.at("plan").at("runs") == 0);
  CHECK(json.at("plan").at("bytes") == 0);
  CHECK(json.at("speedup_bound") == 3);
  CHECK(json.at("block_sparse_axes").empty());
  // The middle of the grid is 3,4.
  const nlohmann::json& row = json.at("row");
  CHECK(row.at("number") == 6);
  CHECK(row.at("visited") == 4);
  CHECK(row.at("full") == 0);
  CHECK(row.at("tokens").dump() ==
        R"([{"axis":"y","count":2,"first":2,"step":1},{"axis":"x","count":2,"first":4,"step":1}])");
  const std::string text = text_of(box, words);
  CHECK(has(text, "a formula, nothing is stored"));
  CHECK(has(text, "tile of queries 6, the middle one: y 2 to 3, x 4 to 5\n"));
  CHECK(has(text,
            "│                │\n"
            "│      ░░░░░░░░  │\n"
            "│      ░░Q░Q░░░  │\n"
            "│      ░░Q░Q░░░  │\n"
            "│      ░░░░░░░░  │\n"
            "│                │\n"));
  Words corner = words;
  corner.insert(corner.end(), {"--query", "0,1"});
  CHECK(json_of(box, corner).at("row").at("full") == 1);
  CHECK(has(text_of(box, corner), "│Q█Q█░░          │\n│Q█Q█░░          │\n│░░░░░░          │\n│       "));
}

TEST_CASE("explain tiles: windows that no tile cuts") {
  const Sandbox box;
  // Along y four queries share their window of four, which is two tiles long; along x each has its own.
  const std::string spec = box.write(
      "sta.attn", "attention sta {\n  axis y { window = 4, stride = 4 }\n  axis x { window = 4 }\n}\n");
  const Words words = {spec, "--grid", "y=12,x=8", "--tile", "4x2/2x2"};
  CHECK(json_of(box, words).at("block_sparse_axes").dump() == R"(["y"])");
  CHECK(has(text_of(box, words), "  block-sparse     along y: no window is cut by a tile\n"));
}

TEST_CASE("explain tiles: one axis, three axes, a context, dilation") {
  const Sandbox box;
  const std::string line = box.write("line.attn", "attention line { axis t { window = 3 } }\n");
  const Words one = {line, "--shape", "tokens=8", "--tile", "2/2"};
  check_figures(json_of(box, one), {.rows = 4, .all = 16, .visited = 8, .full = 2, .useful = 24});
  CHECK(has(text_of(box, one),
            "│████░░          │\n│████░░          │\n"
            "│  ░░░░░░░░      │\n│  ░░░░░░░░      │\n"
            "│      ░░░░░░░░  │\n│      ░░░░░░░░  │\n"
            "│          ████░░│\n│          ████░░│\n"));

  // Tiles of all 4 keys of 2 x 2, of each of 5 coordinates; the context's 3 keys are one cut tile.
  const std::string box3 =
      box.write("box.attn", "attention box {\n  axis t { window = 3 }\n  axis y\n  axis x\n  context\n}\n");
  const Words three = {box3, "--grid", "t=5,y=2,x=2", "--shape", "context=3", "--tile", "1x2x2/1x2x2"};
  check_figures(json_of(box, three),
                {.rows = 5, .all = 5 * 6, .visited = 5 * 4, .full = 5 * 3, .useful = 20 * 12 + 20 * 3});
  CHECK(has(text_of(box, three),
            "t 1, 3\n┌────┐\n│████│\n│████│\n└────┘\n"
            "t 2\n┌────┐\n│Q█Q█│\n│Q█Q█│\n└────┘\n"
            "context\n┌──────┐\n│░░░░░░│\n└──────┘\n"));

  // Every second pixel: three queries in a row, which see them all.
  const Words dilated = {
      gallery_spec("dilated_2d"), "--grid", "y=6,x=6", "--tile", "3x3/3x3", "--query", "1,0"};
  const nlohmann::json json = json_of(box, dilated);
  check_figures(json, {.rows = 4, .all = 16, .visited = 4, .full = 4, .useful = 36 * 9});
  CHECK(has(text_of(box, dilated), "y 1 to 5 by 2, x 0 to 4 by 2\n"));
  CHECK(has(text_of(box, dilated), "│            │\n│Q█  Q█  Q█  │\n│            │\n│Q█  Q█  Q█  │\n"));
}

TEST_CASE("explain tiles: transposed, causal") {
  const Sandbox box;
  const Words words = {gallery_spec("causal"),        "--transposed", "--shape",
                       "heads=2,head_dim=8,tokens=8", "--tile",       "4/2"};
  // Keys 0 to 3 are seen by some of queries 0 to 3 and by all of 4 to 7; keys 4 to 7 by some of these.
  const nlohmann::json json = json_of(box, words);
  check_figures(json, {.rows = 4, .all = 8, .visited = 6, .full = 2, .useful = 36});
  CHECK(json.at("owner") == "keys");
  CHECK(json.at("scores").at("computed") == 6 * 8);
  CHECK(!json.contains("forward_flops"));
  CHECK(json.at("plan").at("runs") == 2 + 2 + 1 + 1);
  CHECK(json.at("plan").at("bytes") == 6 * 8 + 5 * 4);
  const std::string text = text_of(box, words);
  CHECK(has(text, "  tiles of keys    4\n"));
  CHECK(has(text, "  tiles of queries 6 visited of 8: 2 full, 4 partial; 2 skipped\n"));
  CHECK(has(text, "  forward          not told"));
  CHECK(!has(text, "FLOP"));
  CHECK(has(text, "tiles of keys down, tiles of queries across\n"));
  CHECK(has(text, "┌────┐\n│░░██│\n│░░██│\n│  ░░│\n│  ░░│\n└────┘\n"));
}

TEST_CASE("explain tiles: transposed, a mask for each batch") {
  const Sandbox box;
  const std::string prefix =
      box.write_npy("prefix.npy", DType::i32, {2}, [](std::int64_t b) { return b == 0 ? 0.0 : 8.0; });
  Words words = {
      gallery_spec("prefix_lm"), "--transposed", "--shape", "batch=2,heads=4,tokens=8,head_dim=8", "--input",
      "prefix=" + prefix,        "--tile",       "4/4"};
  check_figures(json_of(box, words), {.rows = 4, .all = 8, .visited = 7, .full = 5, .useful = 36 + 64});
  CHECK(has(text_of(box, words), "│░░██│\n│  ░░│\n"));
  words.insert(words.end(), {"--batch", "1"});
  CHECK(has(text_of(box, words), "│████│\n│████│\n"));
}

TEST_CASE("explain tiles: transposed, neighborhoods") {
  const Sandbox box;
  const std::string spec =
      box.write("near.attn", "attention near {\n  axis y { window = 3 }\n  axis x { window = 3 }\n}\n");
  Words words = {spec, "--transposed", "--grid", "y=6,x=8", "--tile", "2x2/2x2"};
  // Along y the keys of a row are seen by queries 0 to 2, 0 to 5 and 3 to 5, in 2, 3 and 2 tiles, of which
  // the first, the second and none are full; along x by 0 to 2, 0 to 4, 3 to 7 and 5 to 7, in 2, 3, 3 and 2
  // tiles, of which the first, the second, none and none are.
  const nlohmann::json json = json_of(box, words);
  check_figures(json, {.rows = 12, .all = 144, .visited = 7 * 10, .full = 2 * 2, .useful = 48 * 9});
  CHECK(json.at("plan").at("kind") == "formula");
  CHECK(json.at("row").at("number") == 6);
  CHECK(json.at("row").at("visited") == 3 * 3);
  CHECK(json.at("row").at("full") == 0);
  CHECK(has(text_of(box, words), "tile of keys 6, the middle one: y 2 to 3, x 4 to 5\n"));
  words.insert(words.end(), {"--key", "0,3"});
  const nlohmann::json row = json_of(box, words).at("row");
  CHECK(row.at("visited") == 2 * 3);
  CHECK(row.at("full") == 1);
  CHECK(row.at("tokens").dump() ==
        R"([{"axis":"y","count":2,"first":0,"step":1},{"axis":"x","count":2,"first":2,"step":1}])");
  const std::string text = text_of(box, words);
  CHECK(has(text, "tile of keys 1, which holds that key: y 0 to 1, x 2 to 3\n"));
  CHECK(has(text, "queries: y 0 to 5 down, x 0 to 7 across\n"));
  CHECK(has(text,
            "│░░░░K█K█░░      │\n"
            "│░░░░K█K█░░      │\n"
            "│░░░░░░░░░░      │\n"
            "│                │\n"));
  CHECK(has(text, "K: the keys"));

  // What is cheapest forward is not what is cheapest transposed.
  const Words three = {gallery_spec("neighborhood_3d"), "--grid", "t=8,y=32,x=32"};
  Words transposed = three;
  transposed.emplace_back("--transposed");
  CHECK(json_of(box, three).at("tile").at("text") == "8x2x4/8x1x8");
  CHECK(json_of(box, transposed).at("tile").at("text") == "8x1x8/8x2x4");
}

TEST_CASE("explain tiles: transposed, keys of the context are rows") {
  const Sandbox box;
  const std::string line =
      box.write("line.attn", "attention line {\n  axis t { window = 3 }\n  context\n}\n");
  const Words words = {line, "--transposed", "--shape", "tokens=8,context=3", "--tile", "2/2"};
  // Along t as along x above; two rows of the context visit all 4 tiles of queries, which are whole.
  const nlohmann::json json = json_of(box, words);
  check_figures(json, {.rows = 6, .all = 24, .visited = 10 + 8, .full = 2 + 8, .useful = 24 + 24});
  CHECK(json.at("context_rows") == 2);
  const std::string text = text_of(box, words);
  CHECK(has(text, "  tiles of keys    6, 2 of them of the context\n"));
  CHECK(has(text, "keys down, tile by tile; queries across\n"));
  CHECK(has(text,
            "│████░░          │\n│████░░          │\n"
            "│░░░░████░░      │\n│░░░░████░░      │\n"
            "│      ░░░░░░░░░░│\n│      ░░░░░░░░░░│\n"
            "│          ░░░░░░│\n│          ░░░░░░│\n"
            "│╱╱╱╱╱╱╱╱╱╱╱╱╱╱╱╱│\n│╱╱╱╱╱╱╱╱╱╱╱╱╱╱╱╱│\n"
            "│████████████████│\n│████████████████│\n│████████████████│\n"));

  // Queries 0, 2, 4 and 6 fill two tiles; 1 and 3 fill one, and 5 is a cut one.
  const std::string dilated =
      box.write("dilated.attn", "attention dilated {\n  axis t { window = 3, dilation = 2 }\n  context\n}\n");
  CHECK(has(text_of(box, {dilated, "--transposed", "--shape", "tokens=7,context=2", "--tile", "2/2"}),
            "│██████████░░██│\n│██████████░░██│\n"));
}

TEST_CASE("explain tiles: a chosen shape, and what else there was") {
  const Sandbox box;
  const nlohmann::json json = json_of(box, {gallery_spec("neighborhood_3d"), "--grid", "t=6,y=16,x=24"});
  CHECK(json.at("chosen") == true);
  REQUIRE(json.at("alternatives").size() == 3);
  double least = 0;
  for (const nlohmann::json& other : json.at("alternatives")) {
    CHECK(other.at("tile").at("queries").size() == 3);
    CHECK(other.at("visited") > 0);
    CHECK(other.at("full") >= 0);
    CHECK(other.at("computed_scores") == other.at("visited").get<double>() * 64 * 64);
    CHECK(other.at("extra_cost") >= least);
    least = other.at("extra_cost");
  }
  const std::string text = text_of(box, {gallery_spec("neighborhood_3d"), "--grid", "t=6,y=16,x=24"});
  CHECK(has(text, ", the cheapest of all with 64 and 64\n"));
  CHECK(has(text, "next best "));
  CHECK(has(text_of(box, {gallery_spec("swin")}), "not counting what the mask leaves out\n"));
}

TEST_CASE("explain tiles: nothing is an answer") {
  const Sandbox box;
  for (const char* shape : {"tokens=0", "tokens=8,keys=0", "tokens=8,batch=0", "tokens=8,heads=0"})
    for (const char* spec : {"causal", "prefix_lm", "relative_bias"}) {
      CAPTURE(shape);
      CAPTURE(spec);
      const Words words = {gallery_spec(spec), "--shape", shape};
      const nlohmann::json json = json_of(box, words);
      CHECK(json.at("tiles").at("visited") == 0);
      CHECK(json.at("scores").at("useful") == 0);
      CHECK(json.at("speedup_bound").is_null());
      CHECK(has(text_of(box, words), "0 visited of 0"));
      CHECK(json_of(box, {gallery_spec(spec), "--shape", shape, "--transposed"}).at("tiles").at("all") == 0);
    }
  CHECK(json_of(box, {gallery_spec("swin"), "--grid", "y=0,x=8"}).at("rows") == 0);
}

TEST_CASE("explain tiles: a tile may be larger than what it covers") {
  const Sandbox box;
  const nlohmann::json causal =
      json_of(box, {gallery_spec("causal"), "--shape", "tokens=8", "--tile", "64/16"});
  check_figures(causal, {.rows = 1, .all = 1, .visited = 1, .full = 0, .useful = 36});
  CHECK(causal.at("scores").at("computed") == 64 * 16);
  const nlohmann::json grid =
      json_of(box, {gallery_spec("neighborhood_2d"), "--grid", "y=8,x=8", "--tile", "64x64/64x64"});
  check_figures(grid, {.rows = 1, .all = 1, .visited = 1, .full = 0, .useful = 64 * 49});
}

TEST_CASE("explain tiles: as a file") {
  const Sandbox box;
  for (const char* spec : {"causal", "neighborhood_1d", "neighborhood_2d", "video_context"}) {
    CAPTURE(spec);
    const Outcome o =
        box.run(tiles({gallery_spec(spec), "--json", "--png", box.path(fmt::format("{}.png", spec))}));
    if (o.exit == 3) {
      MESSAGE("skipped: this program was built without libpng");
      return;
    }
    CHECK(o.exit == 0);
    CHECK(box.read(fmt::format("{}.png", spec)).starts_with("\x89PNG\r\n\x1a\n"));
  }
  CHECK(box.count_files() == 4);
  // Keys down: four rows of two tiles, in cells of 48 pixels, with a margin of 12 on each side.
  for (const char* spec : {"neighborhood_1d", "neighborhood_2d", "video_context", "causal"})
    CHECK(box.run(tiles({gallery_spec(spec), "--transposed", "--png", box.path("transposed.png"), "--json"}))
              .exit == 0);
  text_of(box, {gallery_spec("causal"), "--transposed", "--shape", "tokens=8", "--tile", "4/2", "--png",
                box.path("transposed.png")});
  CHECK(box.read("transposed.png").substr(16, 8) == std::string("\0\0\0\x78\0\0\0\xd8", 8));
  const Outcome nothing =
      box.run(tiles({gallery_spec("causal"), "--shape", "tokens=0", "--png", box.path("nothing.png")}));
  CHECK(nothing.exit == 1);
  CHECK(has(nothing.err, "nothing to draw"));
  CHECK(!box.holds("nothing.png"));
}

TEST_CASE("explain tiles: mistakes") {
  const Sandbox box;
  const std::string causal = gallery_spec("causal"), grid = gallery_spec("neighborhood_2d");
  struct Mistake {
    Words words;
    int exit;
    const char* says;
  };
  for (const Mistake& m : std::vector<Mistake>{
           {{}, 2, "needs a spec"},
           {{grid, "--tile", "64/64"}, 2, "8x8/8x8"},
           {{causal, "--tile", "8x8/8x8"}, 2, "no tile shape of 1 axis"},
           {{causal, "--tile", "64"}, 2, "8/8"},
           {{causal, "--tile", "0/64"}, 2, "8/8"},
           {{causal, "--tile", "64/-1"}, 2, "8/8"},
           {{causal, "--tile", "64/64/64"}, 2, "8/8"},
           {{causal, "--tile", "broad/deep"}, 2, "8/8"},
           {{causal, "--tile", "99999999999/1"}, 2, "8/8"},
           {{grid, "--tile", "8x/8x8"}, 2, "8x8/8x8"},
           {{causal, "--batch", "2"}, 2, "--batch"},
           {{causal, "--head", "-1"}, 2, "--head"},
           {{causal, "--shape", "batch=x"}, 2, "NAME=NUMBER"},
           {{causal, "--shape", "batch=-1"}, 2, "NAME=NUMBER"},
           {{causal, "--shape", "batch="}, 2, "NAME=NUMBER"},
           {{causal, "--shape", "batch=2,batch=3"}, 2, "twice"},
           {{causal, "--shape", "heads=3,kv_heads=2"}, 1, "heads"},
           {{causal, "--param", "depth=3"}, 2, "depth"},
           {{causal, "--query", "3"}, 2, "--query"},
           {{grid, "--query", "3"}, 2, "coordinates"},
           {{grid, "--query", "3,99"}, 2, "not a place"},
           {{grid, "--key", "3,3"}, 2, "--transposed"},
           {{grid, "--transposed", "--query", "3,3"}, 2, "--key"},
           {{grid, "--transposed", "--key", "3"}, 2, "`--key 3` has 1 coordinates"},
           {{causal, "--transposed", "--key", "3"}, 2, "--key goes with two axes or more"},
           {{gallery_spec("alibi"), "--input", "slope=x.npy"}, 2, "no input `slope`"},
           {{grid, "--grid", "y=5,x=9"}, 1, "window"},
           {{causal, "--shape", "tokens=20000000", "--tile", "1/1"}, 5, "too many"},
           // Before the work, which this problem would not survive.
           {{causal, "--shape", "tokens=20000000", "--tile", "1/1", "--png", box.path("no/x.png")},
            2,
            "x.png"},
       }) {
    const Outcome o = box.run(tiles(m.words));
    CAPTURE(fmt::format("{}", fmt::join(m.words, " ")));
    CAPTURE(o.err);
    CHECK(o.exit == m.exit);
    CHECK(has(o.err, m.says));
    CHECK(o.out.empty());
  }
  for (const Words& words : std::vector<Words>{{"--tile", "8/8"}, {"--transposed"}, {"--key", "3"}}) {
    Words all = {"explain", "mask", causal};
    all.insert(all.end(), words.begin(), words.end());
    const Outcome mask = box.run(all);
    CHECK(mask.exit == 2);
    CHECK(has(mask.err, words[0] + " goes with `explain tiles`"));
  }
  CHECK(box.count_files() == 0);
}

}  // namespace
}  // namespace vicinal::testing
