// The Hopper kernel where its tiles, rings and copies end: dims, lengths around tiles, heads, layouts,
// streams, graphs; against the interpreter, through the public API.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "runtime/kernel_impl.h"
#include "tests/support/device_check.h"

namespace vicinal::testing {
namespace {

constexpr const char* kFull = "attention full {}";
constexpr const char* kCausal = "attention causal { mask = k <= q }";
constexpr const char* kWindow =
    "attention window {\n  axis t { window = 90, causal }\n  score = 20.0 * tanh(score / 20.0)\n}";
constexpr const char* kSkipped =
    "attention skipped {\n  input kept: int[keys]\n  mask = kept[k] > 0 and k % 7 != 3\n"
    "  score = score + 0.01 * (k - q)\n  sink = 0.5\n}";
constexpr const char* kContext =
    "attention context {\n  context\n  mask = k.context or k <= q\n  score = score * 0.7\n}";

std::optional<cuda::Context> hopper_or_skip() {
  const auto context = context_or_skip();
  if (!context || is_hopper(*context)) return context;
  MESSAGE("skipped: the device is not of compute capability 9.0");
  return std::nullopt;
}

Problem problem_of(const Job& job, const ProblemShape& shape, unsigned seed = 1) {
  Problem problem = make_problem(shape, seed);
  for (const std::string& name : job.spec.inputs()) {
    HostTensor kept(job.host->impl().options.input_dtypes.at(name), {shape.keys[0]});
    kept.fill([](const Index& at) { return at[0] % 5 == 1 ? 0.0 : 1.0; });
    problem.inputs[name] = kept;
  }
  return problem;
}

Job job_of(const char* text, DType dtype, std::int64_t head_dim, std::int64_t value_dim,
           const char* kernel = "hopper") {
  const Spec spec = Spec::from_string(text).value();
  return device_job(fmt::format("{} {}/{}", spec.name(), head_dim, value_dim), spec, dtype, kernel, head_dim,
                    value_dim);
}

}  // namespace

TEST_CASE("the Hopper kernel at every head dim") {
  const auto context = hopper_or_skip();
  if (!context) return;
  std::vector<Job> jobs;
  int n = 0;
  for (std::int64_t dim = 8; dim <= 256; dim += 8) {
    const DType dtype = ++n % 2 == 0 ? DType::bf16 : DType::f16;
    jobs.push_back(job_of(n % 3 == 0 ? kFull : n % 3 == 1 ? kCausal : kWindow, dtype, dim, dim));
  }
  for (const auto& [head, value] : {std::pair(192, 128), {64, 256}, {256, 64}, {40, 88}, {128, 8}})
    jobs.push_back(job_of(kSkipped, DType::bf16, head, value));
  compile_all(jobs);
  ErrorTable table;
  check_each(jobs.size(), [&](std::size_t i) {
    const Job& job = jobs[i];
    std::mt19937 random(static_cast<unsigned>(i));
    CAPTURE(job.name);
    REQUIRE_MESSAGE(job.tested.has_value(), job.error);
    CHECK(job.tested->info().path == "cuda/hopper");
    Problem problem = problem_of(job, shape_of(job, 210, 210));
    check_values(*context, job, problem, &table);
    poison(problem, random);
    check_values(*context, job, problem, nullptr);
  });
  MESSAGE("\n", table.text());
}

TEST_CASE("the Hopper kernel at lengths around its tiles") {
  const auto context = hopper_or_skip();
  if (!context) return;
  std::vector<Job> jobs;
  for (const char* text : {kFull, kCausal, kWindow, kSkipped, kContext}) {
    jobs.push_back(job_of(text, DType::bf16, 64, 64));
    jobs.push_back(job_of(text, DType::f16, 128, 128));
  }
  compile_all(jobs);
  check_each(jobs.size(), [&](std::size_t n) {
    const Job& job = jobs[n];
    std::mt19937 random(static_cast<unsigned>(n));
    CAPTURE(job.name);
    REQUIRE_MESSAGE(job.tested.has_value(), job.error);
    const bool windowed = job.spec.name() == "window";
    for (const std::int64_t tile : {64, 80, 128, 192, 384})
      for (const std::int64_t off : {-1, 0, 1}) {
        const std::int64_t tokens = tile + off + (windowed ? 64 : 0);
        CAPTURE(tokens);
        Problem problem = problem_of(job, shape_of(job, tokens, tokens));
        check_values(*context, job, problem, nullptr);
        if (job.options.dtype == DType::bf16) check_mask(*context, job, problem, Tiles::reached);
        poison(problem, random);
        check_values(*context, job, problem, nullptr);
      }
    if (windowed) return;
    for (const auto& [queries, keys] : {std::pair(1, 1), {1, 700}, {300, 5}, {193, 81}, {64, 0}}) {
      CAPTURE(queries);
      CAPTURE(keys);
      check_values(*context, job, problem_of(job, shape_of(job, queries, keys)), nullptr);
    }
  });
}

TEST_CASE("the Hopper kernel over grids of several axes") {
  const auto context = hopper_or_skip();
  if (!context) return;
  struct Grid {
    const char* text;
    std::vector<std::int64_t> extents;
  };
  // Ragged extents, windows of a token and of a whole axis, even ones, strides, dilations that one copy
  // brings and that it does not, causal axes; masks and scores by coordinates.
  const Grid grids[] = {
      {"attention a {\n  axis t { window = 9, dilation = 5 }\n}", {461}},
      {"attention b {\n  axis t { window = 6, dilation = 8, causal }\n}", {400}},
      {"attention c {\n  axis y { window = 7 }\n  axis x { window = 7 }\n}", {29, 43}},
      {"attention d {\n  axis y { window = 12, stride = 8, dilation = 5 }\n  axis x { window = 7, stride = 4 "
       "}\n}",
       {67, 40}},
      {"attention e {\n  axis y { window = 1 }\n  axis x { window = 40 }\n}", {17, 40}},
      {"attention f {\n  axis y { causal, window = 5 }\n  axis x { }\n  score = score + 0.1 * (k.x - q.x)\n}",
       {21, 33}},
      {"attention g {\n  axis t { window = 6 }\n  axis y { window = 8 }\n  axis x { window = 8 }\n}",
       {9, 20, 27}},
      {"attention h {\n  axis t { window = 4, causal }\n  axis y { window = 3, dilation = 3 }\n  axis x { "
       "window = 5, "
       "dilation = 2 }\n}",
       {7, 13, 22}},
      {"attention i {\n  axis t { window = 3, stride = 2 }\n  axis y { window = 4, stride = 3 }\n  axis x { "
       "window = "
       "3 }\n"
       "  mask = (k.t + k.x) % 3 != 1\n  score = 20.0 * tanh(score / 20.0)\n}",
       {13, 11, 9}},
      {"attention j {\n  axis t { }\n  axis y { window = 2 }\n  axis x { window = 16 }\n  context\n  sink = "
       "0.25\n}",
       {5, 3, 31}},
  };
  std::vector<Job> jobs;
  int n = 0;
  for (const Grid& grid : grids)
    for (const std::int64_t dim : {64, 128}) {
      ++n;
      jobs.push_back(job_of(grid.text, n % 2 == 0 ? DType::bf16 : DType::f16, dim, n % 3 == 0 ? 96 : dim));
      jobs.push_back(jobs.back());
    }
  // The second of each in another schedule.
  for (std::size_t i = 1; i < jobs.size(); i += 2) jobs[i].options.schedule = 1 + static_cast<int>(i / 2 % 3);
  compile_all(jobs);
  check_each(jobs.size(), [&](std::size_t i) {
    const Job& job = jobs[i];
    std::mt19937 random(static_cast<unsigned>(i));
    CAPTURE(job.name);
    CAPTURE(job.options.schedule);
    REQUIRE_MESSAGE(job.tested.has_value(), job.error);
    CHECK(job.tested->info().path == "cuda/hopper");
    for (const Layout layout : {Layout::bhnd, Layout::bnhd}) {
      ProblemShape shape = shape_of(job, 1, 1, layout);
      shape.queries = shape.keys = grids[i / 4].extents;
      if (job.options.head_dim % 64 != 0 || job.options.value_dim % 64 != 0) shape.batch = 1;
      Problem problem = problem_of(job, shape);
      check_values(*context, job, problem, nullptr);
      if (job.options.dtype == DType::bf16) check_mask(*context, job, problem, Tiles::reached);
      poison(problem, random);
      check_values(*context, job, problem, nullptr);
    }
  });
}

TEST_CASE("tensors that the copy engine cannot take go to the tensor-core kernel") {
  const auto context = hopper_or_skip();
  if (!context) return;
  std::vector<Job> jobs = {job_of(kCausal, DType::bf16, 64, 64, ""), job_of(kFull, DType::f16, 72, 40, "")};
  compile_all(jobs);
  for (const Job& job : jobs) {
    CAPTURE(job.name);
    REQUIRE_MESSAGE(job.tested.has_value(), job.error);
    for (const auto& [layout, path] : {std::pair(Layout::bhnd, "cuda/hopper"),
                                       {Layout::bnhd, "cuda/hopper"},
                                       {Layout::padded, "cuda/mma"},
                                       {Layout::reversed, "cuda/mma"}}) {
      CAPTURE(static_cast<int>(layout));
      const Problem problem = problem_of(job, shape_of(job, 150, 150, layout));
      check_values(*context, job, problem, nullptr);
      const Support support = job.tested->supports(problem.arguments()).value();
      CHECK(support.path == path);
      if (support.path == "cuda/mma") CHECK(support.reason.find("copy engine") != std::string::npos);
    }
  }
}

TEST_CASE("a Hopper launch gives the same bits every time") {
  const auto context = hopper_or_skip();
  if (!context) return;
  std::vector<Job> jobs = {job_of(kCausal, DType::bf16, 128, 128), job_of(kFull, DType::bf16, 64, 64)};
  compile_all(jobs);
  for (const Job& job : jobs) {
    REQUIRE_MESSAGE(job.tested.has_value(), job.error);
    ProblemShape shape = shape_of(job, 1500, 1500);
    shape.heads = 6;
    shape.kv_heads = 2;
    Problem problem = problem_of(job, shape);
    std::vector<std::byte> first;
    for (int n = 0; n < 20; ++n) {
      REQUIRE(run_on_device(*context, *job.tested, problem, Tiles::reached).has_value());
      const auto bytes = problem.out.bytes();
      if (n == 0)
        first.assign(bytes.begin(), bytes.end());
      else
        CHECK(std::equal(first.begin(), first.end(), bytes.begin()));
    }
  }
}

}  // namespace vicinal::testing
