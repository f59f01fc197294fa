// Tile plans, forward and transposed, against brute force: a tile that is left out keeps no pair, and a full
// one keeps all of them.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <array>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>

#include "runtime/cpu/interpreter.h"
#include "runtime/kernel_impl.h"
#include "runtime/plan/tile_cost.h"
#include "tests/support/gallery.h"
#include "tests/support/random_problem.h"
#include "tests/support/random_spec.h"

namespace vicinal::testing {
namespace {

struct Tally {
  std::int64_t tiles = 0, empty = 0, full = 0, partial = 0;
  std::int64_t missed_empty = 0, missed_full = 0;  // left partial, though they are one or the other
  std::int64_t unsound = 0;
  std::int64_t kept = 0;  // pairs in tiles

  void add(const Tally& other) {
    tiles += other.tiles;
    empty += other.empty;
    full += other.full;
    partial += other.partial;
    missed_empty += other.missed_empty;
    missed_full += other.missed_full;
    unsound += other.unsound;
    kept += other.kept;
  }
};

// Every pair's truth by the interpreter, which knows no tiles; scores are plain, so that -inf says not kept.
class BruteForce {
 public:
  BruteForce(const ir::Module& module, const runtime::Problem& problem)
      : interpreter_(module, problem), problem_(problem) {}

  const std::vector<bool>& kept(std::int64_t b, std::int64_t h, std::int64_t token) {
    const std::int64_t key = (b * problem_.heads + h) * problem_.local_queries() + token;
    auto [known, is_new] = rows_.try_emplace(key);
    if (is_new)
      for (double s : interpreter_.scores({b, h, token})) known->second.push_back(s != -INFINITY);
    return known->second;
  }

 private:
  cpu::Interpreter interpreter_;
  const runtime::Problem& problem_;
  std::map<std::int64_t, std::vector<bool>> rows_;
};

std::int64_t flattened(const plan::TileGrid& grid, const std::vector<runtime::GridAxis>& axes,
                       const std::vector<Stretch>& box, std::int64_t n) {
  std::int64_t token = 0, scale = 1;
  for (std::size_t i = box.size(); i-- > 0;) {
    const std::int64_t at = box[i].first + n % box[i].count * grid.axis(i).dilation - axes[i].origin;
    n /= box[i].count;
    token += at * scale;
    scale *= axes[i].local;
  }
  return token;
}

std::int64_t size(const std::vector<Stretch>& box) {
  std::int64_t n = 1;
  for (const Stretch& s : box) n *= s.count;
  return n;
}

// The tokens of a side, its grid's and then, of keys, the context's.
std::int64_t count_of(plan::Side side, const runtime::Problem& p) {
  return side == plan::Side::queries ? p.local_queries() : p.local_keys() + p.context;
}

std::vector<std::int64_t> tokens_of(const plan::TileGrid& grid, plan::Side side, bool context,
                                    const std::vector<Stretch>& box) {
  const runtime::Problem& p = grid.problem();
  std::vector<std::int64_t> tokens;
  for (std::int64_t n = 0; n < size(box); ++n) {
    if (side == plan::Side::queries)
      tokens.push_back(flattened(grid, p.q_axis, box, n));
    else
      tokens.push_back(context ? p.local_keys() + box[0].first + n : flattened(grid, p.k_axis, box, n));
  }
  return tokens;
}

Tally compare(const plan::TilePlan& plan, const runtime::Problem& p, BruteForce& brute) {
  Tally tally;
  const plan::TileGrid& grid = plan.grid();
  const plan::Side owner = grid.owner(), visited = grid.visited();
  const auto in_grid =
      static_cast<std::size_t>(owner == plan::Side::queries ? p.local_queries() : p.local_keys());
  std::vector<int> times(static_cast<std::size_t>(count_of(owner, p)));  // that a token stands in a row
  for (std::int64_t slice = 0; slice < p.batch * p.heads; ++slice) {
    const std::int64_t b = slice / p.heads, h = slice % p.heads;
    const auto kept = [&](std::int64_t own, std::int64_t other) {
      const bool forward = owner == plan::Side::queries;
      return brute.kept(b, h, forward ? own : other)[static_cast<std::size_t>(forward ? other : own)];
    };
    for (std::int64_t number = 0; number < grid.rows(); ++number) {
      plan::Row row;
      grid.row(number, row);
      const std::vector<std::int64_t> own = tokens_of(grid, owner, number >= grid.grid_rows(), row.tokens);
      for (const std::int64_t token : own) {
        if (slice == 0) ++times[static_cast<std::size_t>(token)];
        if (static_cast<std::size_t>(token) < in_grid) REQUIRE(grid.row_of(token) == number);
      }
      std::vector<int> marks(static_cast<std::size_t>(row.tiles));  // 1 partial, 2 full
      plan.each_tile(plan.slices().of(b, h), number, row, [&](std::int64_t t, bool full) {
        REQUIRE(t < row.tiles);
        marks[static_cast<std::size_t>(t)] = full ? 2 : 1;
      });
      std::vector<std::int64_t> tile_of(static_cast<std::size_t>(count_of(visited, p)), -1);
      for (std::int64_t t = 0; t < row.tiles; ++t) {
        std::vector<Stretch> box;
        grid.tile(row, t, box);
        const int mark = marks[static_cast<std::size_t>(t)];
        const std::vector<std::int64_t> tokens = tokens_of(grid, visited, grid.is_context(row, t), box);
        REQUIRE(grid.has_tokens(row, t) == !tokens.empty());
        if (tokens.empty()) {
          REQUIRE(mark == 0);
          continue;
        }
        std::int64_t sum = 0;
        for (const std::int64_t token : tokens) {
          REQUIRE(tile_of[static_cast<std::size_t>(token)] == -1);
          tile_of[static_cast<std::size_t>(token)] = t;
          for (const std::int64_t mine : own) sum += kept(mine, token);
        }
        const auto pairs = static_cast<std::int64_t>(tokens.size() * own.size());
        const bool whole = static_cast<std::int64_t>(tokens.size()) == grid.shape().tokens(visited);
        ++tally.tiles;
        tally.kept += sum;
        tally.empty += mark == 0;
        tally.partial += mark == 1;
        tally.full += mark == 2;
        tally.unsound += (mark == 0 && sum != 0) || (mark == 2 && (sum != pairs || !whole));
        tally.missed_empty += mark == 1 && sum == 0;
        tally.missed_full += mark == 1 && sum == pairs && whole;
      }
      // What no tile holds, nobody keeps.
      for (std::size_t token = 0; token < tile_of.size(); ++token)
        if (tile_of[token] == -1)
          for (const std::int64_t mine : own) tally.unsound += kept(mine, static_cast<std::int64_t>(token));
    }
  }
  for (const int n : times) REQUIRE(n == 1);
  return tally;
}

Kernel interpreted(const Spec& spec, const std::map<std::string, DType>& dtypes) {
  CompileOptions options;
  options.backend = Backend::interpreter;
  options.dtype = DType::f64;
  options.head_dim = 8;
  options.input_dtypes = dtypes;
  return compile(spec, options).value();
}

// A part of the queries and a part of the keys, anywhere on the grid.
void take_shard(runtime::Problem& p, std::mt19937& random) {
  const auto below = [&](std::int64_t n) { return static_cast<std::int64_t>(random() % n); };
  for (auto* axes : {&p.q_axis, &p.k_axis})
    for (runtime::GridAxis& axis : *axes) {
      if (axis.extent == 0) continue;
      axis.local = 1 + below(axis.extent);
      axis.origin = below(axis.extent - axis.local + 1);
    }
}

// By owner of the rows.
using Tallies = std::array<Tally, 2>;

Tallies check_plans(const Kernel& kernel, const Problem& problem, int shapes, std::mt19937& random,
                    int effort, bool shard = false) {
  runtime::Problem bound = kernel.impl().bind(problem.arguments()).value();
  if (shard) take_shard(bound, random);
  BruteForce brute(kernel.impl().variant.checked.module, bound);
  Tallies tallies;
  for (int i = 0; i < shapes; ++i) {
    const plan::TileShape shape = random_tile_shape(bound.q_axis.size(), random);
    const unsigned threads = 1 + static_cast<unsigned>(random() % 2);
    double kept_forward = 0;
    CAPTURE(plan::print(shape));
    for (const plan::Side owner : {plan::Side::queries, plan::Side::keys}) {
      const bool transposed = owner == plan::Side::keys;
      CAPTURE(transposed);
      const auto plan = plan::plan_tiles(kernel.impl().masks(), bound, shape,
                                         {.owner = owner, .threads = threads, .effort = effort});
      REQUIRE(plan.has_value());
      const Tally one = compare(*plan, bound, brute);
      CHECK(one.unsound == 0);
      // Counted by halving, which leaves out what even a single pair does not tell: a value that is NaN.
      const double kept = plan::plan_cost(*plan, kernel.impl().masks(), {}).useful.value();
      CHECK(kept == (transposed ? kept_forward : kept));
      CHECK(kept * static_cast<double>(bound.batch * bound.heads / plan->slices().count()) <=
            static_cast<double>(one.kept));
      kept_forward = kept;
      tallies[transposed].add(one);
    }
  }
  return tallies;
}

std::string words(const Tally& t) {
  return fmt::format("{} tiles: {} empty, {} full, {} partial, of which {} are really empty and {} full",
                     t.tiles, t.empty, t.full, t.partial, t.missed_empty, t.missed_full);
}

}  // namespace

TEST_CASE("tile plans: random specs, random tile shapes") {
  const char* wanted = std::getenv("VICINAL_RANDOM_PLANS");
  const std::int64_t least = wanted == nullptr ? 20000 : std::atoll(wanted);
  Tallies tallies;
  unsigned specs = 0;
  for (unsigned seed = 50001; tallies[0].tiles < least || specs < 400; ++seed) {
    const std::string text = random_spec(seed, true).mask_only;
    CAPTURE(seed);
    CAPTURE(text);
    std::mt19937 random(seed);
    const Spec spec = Spec::from_string(text).value();
    const Kernel kernel = interpreted(spec, random_input_dtypes(spec, random));
    const std::optional<Problem> problem = random_problem(kernel, random, {.tokens = 24, .heads = 2});
    if (!problem) continue;
    ++specs;
    const Tallies more = check_plans(kernel, *problem, 2, random, seed % 3 == 0 ? 0 : 48, seed % 4 == 0);
    for (const int transposed : {0, 1}) tallies[transposed].add(more[transposed]);
  }
  for (const int transposed : {0, 1}) {
    const Tally& tally = tallies[transposed];
    MESSAGE(specs, " specs, ", std::string(transposed != 0 ? "transposed" : "forward"), ": ", words(tally));
    CHECK(tally.empty > tally.tiles / 50);
    CHECK(tally.full > tally.tiles / 50);
  }
}

TEST_CASE("tile plans: the gallery") {
  std::mt19937 random(5);
  for (const GalleryBlock& block : gallery()) {
    CAPTURE(block.name);
    const Kernel kernel = interpreted(block.spec, {});
    std::string why;
    const std::optional<Problem> problem = random_problem(kernel, random, {.tokens = 70, .heads = 2}, &why);
    if (!problem) continue;
    const runtime::Problem bound = kernel.impl().bind(problem->arguments()).value();
    if (bound.local_queries() * bound.local_keys() > 200000) continue;
    for (const Tally& tally : check_plans(kernel, *problem, 2, random, 1000))
      if (tally.missed_empty + tally.missed_full != 0) MESSAGE(block.name, ": ", words(tally));
  }
}

// By 0 divided, or of no number, an index is a range to the set arithmetic, though no token changes it.
TEST_CASE("tile plans: indices that are no single numbers to the arithmetic of sets") {
  std::mt19937 random(7);
  for (const char* const index :
       {"int(1.0 / float(b))", "int(rsqrt(float(b) - 1.0))", "2 if f[b] < 1.0 else 0"}) {
    CAPTURE(std::string(index));
    const Spec spec =
        Spec::from_string(std::string("attention t {\n input n: int[3]\n input f: float[batch]\n "
                                      "mask = k <= n[clamp(") +
                          index + ", 0, 2)]\n}")
            .value();
    const Kernel kernel = interpreted(spec, {});
    ProblemShape shape;
    shape.batch = 3;
    shape.queries = shape.keys = {20};
    shape.head_dim = shape.value_dim = 8;
    shape.dtype = DType::f64;
    Problem problem = make_problem(shape);
    problem.inputs["n"] =
        HostTensor(DType::i32, {3}).fill([](const Index& at) { return static_cast<double>(5 + 6 * at[0]); });
    problem.inputs["f"] = HostTensor(DType::f32, {3}).fill([](const Index& at) {
      return at[0] == 1 ? std::numeric_limits<double>::quiet_NaN() : static_cast<double>(at[0]);
    });
    check_plans(kernel, problem, 4, random, 1000);
  }
}

// The runs of a row, as "0-2, 2-3 full".
std::string runs_of(const plan::TilePlan& plan, std::int64_t number) {
  std::string text;
  const auto at = static_cast<std::size_t>(number);
  for (std::uint32_t r = plan.row_starts()[at]; r < plan.row_starts()[at + 1]; ++r) {
    const plan::Run& run = plan.runs()[r];
    text +=
        fmt::format("{}{}-{}{}", text.empty() ? "" : ", ", run.begin, run.end(), run.full() ? " full" : "");
  }
  return text;
}

TEST_CASE("tile plans: transposed, by hand") {
  const auto planned = [](const char* text, std::int64_t queries, std::int64_t keys, std::int64_t context,
                          const plan::TileShape& shape, const auto& look) {
    const Kernel kernel = interpreted(Spec::from_string(text).value(), {});
    ProblemShape s;
    s.dtype = DType::f64;
    s.queries = {queries};
    s.keys = {keys};
    s.context = context;
    const Problem problem = make_problem(s, 1);
    const runtime::Problem bound = kernel.impl().bind(problem.arguments()).value();
    look(*plan::plan_tiles(kernel.impl().masks(), bound, shape, {.owner = plan::Side::keys}));
  };
  // Query i stands where key i + 2 does. The last tile of queries is cut, and so never full.
  planned("attention t { align = end\n mask = k <= q }", 6, 8, -1, {{4}, {3}},
          [](const plan::TilePlan& plan) {
            REQUIRE(plan.grid().rows() == 3);
            CHECK(runs_of(plan, 0) == "0-1 full, 1-2");  // keys 0 to 2, seen by every query
            CHECK(runs_of(plan, 1) == "0-2");            // keys 3 to 5, by queries 1 to 3 on
            CHECK(runs_of(plan, 2) == "1-2");            // keys 6 and 7, by queries 4 and 5
          });
  // A window of 3 whose queries are every other one; then 5 keys of the context in rows of 3.
  planned("attention t { context\n axis x { window = 3, dilation = 2 } }", 12, 12, 5, {{2}, {3}},
          [](const plan::TilePlan& plan) {
            const plan::TileGrid& grid = plan.grid();
            CHECK(!plan.listed());
            REQUIRE(grid.rows() == 4 + 2);
            plan::Row row;
            std::vector<Stretch> box;
            grid.row(3, row);  // keys 7, 9 and 11, seen by queries 5, 7, 9 and 11: positions 2 to 5
            CHECK(row.tokens[0].first == 7);
            REQUIRE(row.tiles == 2);
            grid.tile(row, 0, box);
            CHECK(box[0].first == 5);
            CHECK(box[0].count == 2);
            CHECK(!grid.full(row, 0));
            CHECK(grid.full(row, 1));
            grid.row(5, row);  // keys 3 and 4 of the context
            CHECK(row.tokens[0].first == 3);
            CHECK(row.tokens[0].count == 2);
            CHECK(row.grid_tiles == 0);
            REQUIRE(row.tiles == 6);
            grid.tile(row, 4, box);
            CHECK(box[0].first == 5);
            CHECK(grid.full(row, 4));
          });
}

TEST_CASE("tile plans: the CPU backend, which takes them, and the interpreter, which does not, agree") {
  std::mt19937 random(11);
  int compared = 0;
  for (const GalleryBlock& block : gallery()) {
    CAPTURE(block.name);
    const Kernel interpreter = interpreted(block.spec, {});
    CompileOptions options = interpreter.impl().options;
    options.backend = Backend::cpu;
    const Kernel cpu = compile(block.spec, options).value();
    const std::optional<Problem> made = random_problem(interpreter, random, {.tokens = 80, .heads = 2});
    if (!made || made->shape.queries.size() > 2) continue;
    Problem wanted = *made, got = *made;
    REQUIRE(interpreter.run(wanted.arguments()).has_value());
    REQUIRE(cpu.run(got.arguments()).has_value());
    // Sums in another order.
    const auto close = [](const HostTensor& a, const HostTensor& b) {
      double worst = 0;
      a.each([&](const Index& at) {
        const double x = a.at(at), y = b.at(at);
        if (x == y || (std::isnan(x) && std::isnan(y))) return;
        worst = std::max(worst, std::abs(x - y) / (1 + std::abs(x)));
      });
      return worst < 1e-11;
    };
    CHECK(close(wanted.out, got.out));
    if (made->shape.lse) CHECK(close(wanted.lse, got.lse));
    ++compared;
  }
  CHECK(compared > 100);
}

// Sequences of 115,200 tokens in tiles of 128. The limit is far above what it takes; asking every pair of
// tiles, of which there are 810,000, is above the limit.
TEST_CASE("tile plans: how long they take") {
  constexpr std::int64_t tokens = 115200;
  std::mt19937 random(1);
  std::exponential_distribution<double> length(1 / 2000.0);
  std::vector<std::int32_t> doc;
  for (std::int32_t number = 0; doc.size() < tokens; ++number)
    doc.insert(doc.end(), 1 + static_cast<std::size_t>(length(random)), number);
  std::vector<float> rows(tokens * 8);
  for (const std::string mask :
       {"k <= q", "0 <= q - k < 1024", "doc[q] == doc[k]", "doc[q] == doc[k] and k <= q"}) {
    const bool documents = mask.starts_with("doc");
    const Spec spec = Spec::from_string(fmt::format("attention t {{ {}mask = {} }}",
                                                    documents ? "input doc: int[tokens]\n " : "", mask))
                          .value();
    const Kernel kernel = interpreted(spec, {});
    Tensor tensor{rows.data(), DType::f64, {1, 1, tokens, 8}, {0, 0, 0, 0}};
    RunArguments arguments{.q = tensor, .k = tensor, .v = tensor, .out = tensor};
    if (documents) arguments.inputs = {{"doc", {doc.data(), DType::i32, {tokens}}}};
    arguments.out.strides = {};
    const runtime::Problem bound = kernel.impl().bind(arguments).value();
    for (const plan::Side owner : {plan::Side::queries, plan::Side::keys}) {
      double best = std::numeric_limits<double>::infinity();
      for (int i = 0; i < 15; ++i) {
        const auto start = std::chrono::steady_clock::now();
        const auto plan =
            plan::plan_tiles(kernel.impl().masks(), bound, {{128}, {128}}, {.owner = owner, .threads = 2});
        const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
        REQUIRE(plan.has_value());
        best = std::min(best, time.count());
      }
      MESSAGE(fmt::format("{:32} {}: {:.2f} ms on two threads", mask,
                          owner == plan::Side::queries ? "forward   " : "transposed", best));
      CHECK(best < 40);
    }
  }
}

TEST_CASE("tile plans: prepared once, and for what they were prepared") {
  const Spec spec =
      Spec::from_string("attention t { input doc: int[tokens]\n mask = doc[q] == doc[k] }").value();
  CompileOptions options;
  options.backend = Backend::cpu;
  options.dtype = DType::f32;
  options.head_dim = 8;
  const Kernel kernel = compile(spec, options).value(), other = compile(spec, options).value();
  ProblemShape shape;
  shape.dtype = DType::f32;
  shape.queries = shape.keys = {130};
  const auto make = [&](const ProblemShape& s) {
    Problem p = make_problem(s, 3);
    p.inputs["doc"] = HostTensor(DType::i32, {s.queries[0]}).fill([](const Index& i) { return i[0] / 40; });
    return p;
  };
  Problem problem = make(shape);
  const Plan plan = kernel.prepare(problem.arguments()).value();
  CHECK(plan.depends_on_data());
  CHECK(plan.bytes() > 0);
  CHECK(kernel.run(problem.arguments(), plan).has_value());

  const Result<void> foreign = other.run(problem.arguments(), plan);
  REQUIRE(!foreign.has_value());
  CHECK(foreign.error().message.find("another kernel") != std::string::npos);
  shape.queries = shape.keys = {131};
  Problem longer = make(shape);
  const Result<void> stale = kernel.run(longer.arguments(), plan);
  REQUIRE(!stale.has_value());
  CHECK(stale.error().kind == ErrorKind::spec);
  CHECK(stale.error().message.find("other extents") != std::string::npos);
  RunArguments without = longer.arguments();
  without.inputs.clear();
  const Result<Plan> missing = kernel.prepare(without);
  REQUIRE(!missing.has_value());
  CHECK(missing.error().message.find("doc") != std::string::npos);

  const Spec window = Spec::from_string("attention t { axis x { window = 5 } }").value();
  const Kernel closed = compile(window, options).value();
  Problem plain = make(shape);
  plain.inputs.clear();
  const Plan formula = closed.prepare(plain.arguments()).value();
  CHECK(!formula.depends_on_data());
  CHECK(formula.bytes() == 0);
}

}  // namespace vicinal::testing
