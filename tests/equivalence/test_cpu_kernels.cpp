// Generated code for the CPU against the interpreter, through the public API: every spec of the gallery in
// every dtype, lengths around tiles, NaN in keys that are not kept, and random specs. VICINAL_RANDOM_SPECS
// says how many (2,000).
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cstdlib>
#include <cstring>

#include "runtime/engine.h"
#include "runtime/host/parallel.h"
#include "runtime/kernel_impl.h"
#include "tests/support/accuracy_check.h"
#include "tests/support/code_generator.h"
#include "tests/support/gallery.h"
#include "tests/support/random_problem.h"
#include "tests/support/random_spec.h"
#include "tests/support/sanitized.h"

namespace vicinal::testing {
namespace {

Job job_of(const std::string& name, const Spec& spec, DType dtype, std::mt19937& random) {
  Job job{name, spec};
  job.options.backend = Backend::cpu;
  job.options.dtype = dtype;
  job.options.head_dim = 64;
  job.options.input_dtypes = random_input_dtypes(spec, random);
  return job;
}

RunProblem runs(const Job& job) {
  return [&job](Problem& problem) { return job.tested->run(problem.arguments()); };
}

constexpr unsigned kRandomSpecs = kSanitized ? 200 : 2000;

constexpr DType kDTypes[] = {DType::f32, DType::bf16, DType::f16};

// Code for matrix registers, by calls where there are none.
constexpr const char* kEmulated = "emulated-amx";

// Whether this machine has what a job's target has; says so where not.
bool is_for_this_machine(const Job& job) {
  for (const char* const why : {"machine has not all", "knows no processor"})
    if (job.error.find(why) != std::string::npos) {
      MESSAGE("skipped: ", job.error);
      return false;
    }
  return true;
}

}  // namespace

TEST_CASE("gallery on the CPU") {
  if (lacks_code_generator()) return;
  std::vector<Job> jobs;
  std::mt19937 random(17), more(18);
  for (const GalleryBlock& block : gallery())
    for (const DType dtype : kDTypes) jobs.push_back(job_of(block.name, block.spec, dtype, random));
  REQUIRE(jobs.size() > 90);
  compile_all(jobs);
  ErrorTable table;
  for (const Job& job : jobs) {
    CAPTURE(job.name);
    CAPTURE(std::string(name_of(job.options.dtype)));
    CHECK_MESSAGE(job.tested.has_value(), job.error);
    if (!job.tested) continue;
    CHECK(job.tested->info().path == "cpu/jit");
    for (const std::int64_t tokens : {30, 150}) {
      // The interpreter takes its time: the longer problem in one dtype alone.
      if (tokens > 30 && (kSanitized || job.options.dtype != DType::f32)) continue;
      std::string why;
      std::optional<Problem> problem = random_problem(*job.host, random, {.tokens = tokens}, &why);
      REQUIRE_MESSAGE(problem.has_value(), why);
      const MoreProblems others = more_of(*job.host, more, tokens);
      const Accuracy found = check_values(*job.host, runs(job), *problem, others);
      if (tokens > 30 || job.options.dtype != DType::f32)
        table.add(job.name, "cpu", job.options.dtype, found.out, found.lse);
      if (job.options.dtype == DType::f32) check_mask(*job.host, runs(job), *problem);
      poison(*problem, random);
      check_values(*job.host, runs(job), *problem, others);
    }
  }
  MESSAGE("\n", table.text());
}

namespace {

void check_gallery(std::vector<Job>& jobs, std::initializer_list<std::int64_t> lengths, std::mt19937& random,
                   std::mt19937& more) {
  compile_all(jobs);
  if (!is_for_this_machine(jobs[0])) return;
  for (const Job& job : jobs) {
    CAPTURE(job.name);
    CAPTURE(job.options.cpu_target);
    CHECK_MESSAGE(job.tested.has_value(), job.error);
    if (!job.tested) continue;
    CHECK(job.tested->info().path == "cpu/jit");
    CHECK(job.tested->info().path_reason == job.options.cpu_target);
    for (const std::int64_t tokens : lengths) {
      if (tokens > 30 && kSanitized) continue;
      std::optional<Problem> problem = random_problem(*job.host, random, {.tokens = tokens});
      REQUIRE(problem.has_value());
      check_values(*job.host, runs(job), *problem, more_of(*job.host, more, tokens));
      if (job.options.dtype == DType::f32) check_mask(*job.host, runs(job), *problem);
    }
    std::optional<Problem> poisoned = random_problem(*job.host, random, {.tokens = 30});
    poison(*poisoned, random);
    check_values(*job.host, runs(job), *poisoned, more_of(*job.host, more, 30));
  }
}

}  // namespace

// As on processors that have less than this one: half and a quarter of the register's width, no f16, no fused
// multiplication.
TEST_CASE("gallery on the CPU, compiled for lesser processors") {
  if (lacks_code_generator()) return;
  std::vector<Job> jobs;
  std::mt19937 random(29), more(30);
  for (const GalleryBlock& block : gallery())
    for (const char* const target : {"x86-64", "x86-64-v3"}) {
      Job made = job_of(block.name, block.spec, kDTypes[jobs.size() / 2 % 3], random);
      made.options.cpu_target = target;
      jobs.push_back(std::move(made));
    }
  check_gallery(jobs, {30}, random, more);
}

TEST_CASE("gallery on the CPU, in matrices of bf16") {
  if (lacks_code_generator()) return;
  std::vector<Job> jobs;
  std::mt19937 random(37), more(38);
  for (const GalleryBlock& block : gallery()) {
    jobs.push_back(job_of(block.name, block.spec, DType::bf16, random));
    jobs.back().options.cpu_target = kEmulated;
    // Tiles as they are chosen, and some of which the longer problem has several.
    if (jobs.size() % 2 == 0) {
      jobs.back().options.tile_q = 32;
      jobs.back().options.tile_k = 64;
    }
  }
  check_gallery(jobs, {30, 150}, random, more);
}

constexpr Layout kLayouts[] = {Layout::bhnd, Layout::bnhd, Layout::padded, Layout::reversed};

void check_lengths(const Job& job, std::int64_t queries, std::int64_t keys, Layout layout,
                   std::mt19937& random) {
  ProblemShape s = shape_of(job, queries, keys, layout);
  s.batch = 1;
  s.lse = job.host->impl().variant.checked.module.normalize == ir::Normalize::softmax;
  const auto made = [&] { return make_problem(s, static_cast<unsigned>(random())); };
  check_values(*job.host, runs(job), made(), made);
}

// Where a processor multiplies pairs of bf16 faster, code for it does, or matrices of them, and code for one
// that only has as wide vectors computes with f32. All against the interpreter: dims that are no multiple of
// a vector, an odd number of keys and of keys in a window, rows that do not lie as pairs.
TEST_CASE("bf16 by pairs, by matrices and by f32 on the CPU") {
  if (lacks_code_generator()) return;
  const char* const texts[] = {
      "attention full { }",
      "attention window {\n mask = k <= q and q - k < 37\n score = 5.0 * tanh(score / 5.0)\n sink = 0.5\n}",
      "attention weighed {\n normalize = sigmoid\n mask = (q + k) % 3 != 1\n}"};
  std::mt19937 random(17);
  for (const char* const text : texts)
    for (const auto& [head_dim, value_dim] :
         {std::pair(8, 8), std::pair(40, 72), std::pair(72, 64), std::pair(256, 128)}) {
      std::vector<Job> jobs;
      for (const char* const target : {"", "x86-64-v4", kEmulated}) {
        Job made = job_of(text, Spec::from_string(text).value(), DType::bf16, random);
        made.options.head_dim = head_dim;
        made.options.value_dim = value_dim;
        made.options.cpu_target = target;
        jobs.push_back(std::move(made));
      }
      compile_all(jobs);
      int turn = 0;
      for (const Job& job : jobs) {
        CAPTURE(job.name);
        CAPTURE(head_dim);
        CAPTURE(job.options.cpu_target);
        if (!is_for_this_machine(job)) continue;
        REQUIRE_MESSAGE(job.tested.has_value(), job.error);
        for (const std::int64_t keys : {1, 63, 64, 130, 197}) {
          CAPTURE(keys);
          check_lengths(job, keys, keys, kLayouts[turn++ % 4], random);
        }
      }
    }
}

TEST_CASE("code for a processor uses no more than that has") {
  if (lacks_code_generator()) return;
  const cpu::CodeGeneratorApi& generator = *runtime::Engine::process().value()->code_generator().value();
  const Spec spec = Spec::from_string("attention t {\n score = tanh(score)\n mask = k <= q\n}").value();
  const auto assembly = [&](const std::string& target, DType dtype = DType::f16) {
    emit::CpuKernelOptions options;
    options.dtype = dtype;
    options.target = target;
    std::string text, error;
    const bool done = generator.text(emit::cpu_kernel(spec.impl().variant.specialized, options),
                                     cpu::CodeText::assembly, text, error);
    return done ? text : "error: " + error;
  };
  const auto uses = [](const std::string& text, const char* what) {
    return text.find(what) != std::string::npos;
  };
  const std::string base = assembly("x86-64");
  if (base.starts_with("error: ")) {
    MESSAGE("skipped: ", base);
    return;
  }
  CHECK(uses(base, "mulps"));
  for (const char* const wider : {"%ymm", "%zmm", "vfmadd", "vcvtph2ps"})
    CHECK_MESSAGE(!uses(base, wider), wider);
  const std::string avx2 = assembly("x86-64-v3");
  for (const char* const used : {"%ymm", "vfmadd", "vcvtph2ps"}) CHECK_MESSAGE(uses(avx2, used), used);
  CHECK(!uses(avx2, "%zmm"));
  CHECK(uses(assembly("x86-64-v4"), "%zmm"));
  CHECK(uses(assembly("znver4", DType::bf16), "vdpbf16ps"));
  CHECK(!uses(assembly("znver4", DType::f16), "vdpbf16ps"));
  for (const char* const used : {"ldtilecfg", "tdpbf16ps", "tilerelease"})
    CHECK_MESSAGE(uses(assembly("sapphirerapids", DType::bf16), used), used);
  CHECK(!uses(assembly("sapphirerapids", DType::f16), "tdpbf16ps"));
  for (const char* const slow : {"x86-64-v4", "sapphirerapids"})
    CHECK_MESSAGE(!uses(assembly(slow, DType::bf16), "vdpbf16ps"), slow);
  CHECK(assembly("no-such-processor").find("no processor of the name no-such-processor") !=
        std::string::npos);
}

TEST_CASE("lengths around tiles, head dims, and layouts on the CPU") {
  if (lacks_code_generator()) return;
  const Spec spec = Spec::from_string(
                        "attention t {\n align = end\n score = score - 0.125 * abs(q - k)\n mask = k <= q "
                        "and q - k < 70\n}")
                        .value();
  std::mt19937 random(3);
  for (const auto& [head_dim, value_dim] :
       {std::pair(64, 64), std::pair(8, 24), std::pair(40, 8), std::pair(128, 256)})
    for (const DType dtype : kDTypes) {
      Job made = job_of("around tiles", spec, dtype, random);
      made.options.head_dim = head_dim;
      made.options.value_dim = value_dim;
      std::vector<Job> jobs = {made};
      compile_all(jobs);
      REQUIRE_MESSAGE(jobs[0].tested.has_value(), jobs[0].error);
      const cpu::CodeShape shape = jobs[0].tested->impl().executor->compiled().code().shape;
      int turn = 0;
      for (const std::int64_t queries : {1, shape.tile_q - 1, shape.tile_q, shape.tile_q + 1})
        for (const std::int64_t keys : {shape.tile_k - 1, shape.tile_k, 2 * shape.tile_k + 1}) {
          CAPTURE(queries);
          CAPTURE(keys);
          check_lengths(jobs[0], queries, keys, kLayouts[turn++ % 4], random);
        }
    }
}

TEST_CASE("code that does a task again on the CPU finds its room in the same workspace") {
  if (lacks_code_generator()) return;
  std::vector<Job> jobs;
  std::mt19937 random(4);
  for (const char* const text :
       {"attention t {}", "attention t { axis t { window = 30 } }", "attention t { mask = k <= q }",
        "attention t {\n  axis y { window = 5 }\n  axis x { window = 7 }\n}"})
    for (const char* const target : {"", kEmulated})
      for (const DType dtype : {DType::f32, DType::bf16})
        for (const int tile_q : {0, 16, 48, 80, 96})
          for (const std::int64_t dim : {24, 128}) {
            Job made = job_of(text, Spec::from_string(text).value(), dtype, random);
            made.options.cpu_target = target;
            made.options.head_dim = made.options.value_dim = dim;
            made.options.tile_q = tile_q;
            jobs.push_back(std::move(made));
          }
  compile_all(jobs);
  for (const Job& job : jobs) {
    CAPTURE(job.name);
    CAPTURE(job.options.cpu_target);
    CAPTURE(job.options.tile_q);
    if (!is_for_this_machine(job)) continue;
    REQUIRE_MESSAGE(job.tested.has_value(), job.error);
    const cpu::CompiledKernel& compiled = job.tested->impl().executor->compiled();
    const cpu::CodeShape shape = compiled.code().shape;
    REQUIRE(compiled.exact_code() != nullptr);
    const cpu::CodeShape again = compiled.exact_code()->shape;
    CHECK(again.tile_q == shape.tile_q);
    CHECK(again.tile_k == shape.tile_k);
    CHECK(again.workspace <= shape.workspace);
  }
}

TEST_CASE("sinks that are not finite on the CPU") {
  if (lacks_code_generator()) return;
  std::mt19937 random(31);
  std::vector<Job> jobs;
  for (const char* const score : {"score", "tanh(score) - 2.0 * (q - k)"})
    jobs.push_back(job_of(score,
                          Spec::from_string(fmt::format("attention t {{\n input s: float[heads]\n score = "
                                                        "{}\n mask = k <= q and k > 9\n sink = s[h]\n}}",
                                                        score))
                              .value(),
                          DType::f32, random));
  compile_all(jobs);
  for (const Job& job : jobs) {
    CAPTURE(job.name);
    REQUIRE_MESSAGE(job.tested.has_value(), job.error);
    ProblemShape shape;
    shape.head_dim = shape.value_dim = 64;
    shape.queries = shape.keys = {150};  // several tiles of keys
    shape.dtype = DType::f32;
    Problem problem = make_problem(shape);
    constexpr double kSinks[] = {std::numeric_limits<double>::infinity(),
                                 -std::numeric_limits<double>::infinity(), 0,
                                 std::numeric_limits<double>::quiet_NaN()};
    problem.inputs["s"] = HostTensor(job.options.input_dtypes.at("s"), {4}).fill([&](const Index& at) {
      return kSinks[at[0]];
    });
    check_values(*job.host, runs(job), problem);
  }
}

TEST_CASE("the same bits on any number of threads") {
  if (lacks_code_generator()) return;
  const Spec spec = Spec::from_string("attention t {\n mask = k <= q\n}").value();
  std::mt19937 random(5);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    std::vector<Job> jobs = {job_of("threads", spec, dtype, random)};
    compile_all(jobs);
    REQUIRE_MESSAGE(jobs[0].tested.has_value(), jobs[0].error);
    ProblemShape s;
    s.head_dim = s.value_dim = 64;
    s.queries = s.keys = {301};
    s.dtype = dtype;
    Problem problem = make_problem(s);
    const Kernel::Impl& impl = jobs[0].tested->impl();
    std::vector<std::byte> first;
    for (const unsigned threads : {1u, 2u, 3u, 7u}) {
      const runtime::Problem bound = impl.bind(problem.arguments()).value();
      const Plan plan = jobs[0].tested->prepare(problem.arguments()).value();
      REQUIRE(impl.executor->run(bound, *plan.impl().tiles, threads).has_value());
      if (first.empty()) first = problem.out.bytes();
      CHECK(std::memcmp(first.data(), problem.out.bytes().data(), first.size()) == 0);
    }
  }
}

namespace {

// `target`: of specs in bf16 alone, in tiles that hold whole matrices and in others.
void compare_random_specs(unsigned usually, const char* target) {
  const char* wanted = std::getenv("VICINAL_RANDOM_SPECS");
  const char* start = std::getenv("VICINAL_RANDOM_SEED");
  const unsigned count =
                     wanted == nullptr ? usually : static_cast<unsigned>(std::strtoul(wanted, nullptr, 10)),
                 first = start == nullptr ? 1 : static_cast<unsigned>(std::strtoul(start, nullptr, 10));
  constexpr unsigned kTogether = 50;
  constexpr std::int64_t kTokens = 30;
  constexpr int kTileQ[] = {16, 32, 48, 96}, kTileK[] = {3, 8, 17, 64};
  unsigned without_problem = 0, values = 0, masks = 0;
  for (unsigned from = first; from < first + count; from += kTogether) {
    std::vector<Job> jobs;
    std::vector<std::mt19937> randoms;  // by seed, so that a spec alone meets what it meets among others
    for (unsigned seed = from; seed < std::min(from + kTogether, first + count); ++seed) {
      std::mt19937& random = randoms.emplace_back(seed);
      const RandomSpec text = random_spec(seed, true);
      // Every third spec for its mask alone, the others for their numbers.
      const std::string& chosen = seed % 3 == 0 ? text.mask_only : text.text;
      Job made = job_of(fmt::format("{} {}", seed, chosen), Spec::from_string(chosen).value(),
                        target != nullptr ? DType::bf16
                        : seed % 3 == 0   ? DType::f32
                                          : kDTypes[seed % 5 % 3],
                        random);
      if (target != nullptr) made.options.cpu_target = target;
      made.options.head_dim = seed % 2 == 0 ? 16 : 24;
      made.options.value_dim = seed % 7 == 0 ? 8 : 16;
      made.options.tile_q = kTileQ[random() % 4];
      made.options.tile_k = kTileK[random() % 4];
      jobs.push_back(std::move(made));
    }
    compile_all(jobs);
    if (!is_for_this_machine(jobs[0])) return;
    for (std::size_t i = 0; i < jobs.size(); ++i) {
      const Job& job = jobs[i];
      std::mt19937& random = randoms[i];
      CAPTURE(job.name);
      CAPTURE(std::string(name_of(job.options.dtype)));
      CHECK_MESSAGE(job.tested.has_value(), job.error);
      if (!job.tested) continue;
      std::optional<Problem> problem = random_problem(*job.host, random, {.tokens = kTokens});
      if (!problem) {
        ++without_problem;
        continue;
      }
      if ((from + i) % 3 == 0) {
        check_mask(*job.host, runs(job), *problem);
        ++masks;
        continue;
      }
      if (random() % 2 == 0) poison(*problem, random);
      check_values(*job.host, runs(job), *problem, more_of(*job.host, random, kTokens));
      ++values;
    }
  }
  MESSAGE(values, " random specs compared by numbers and ", masks, " by masks; no problem found for ",
          without_problem);
  CHECK(without_problem * 20 < count);
}

}  // namespace

TEST_CASE("random specs on the CPU") {
  if (!lacks_code_generator()) compare_random_specs(kRandomSpecs, nullptr);
}

TEST_CASE("random specs on the CPU, in matrices of bf16") {
  if (!lacks_code_generator()) compare_random_specs(kRandomSpecs / 4, kEmulated);
}

TEST_CASE("without a code generator the CPU is the interpreter, and says why") {
  const Result<const cpu::CodeGeneratorApi*> none = cpu::code_generator("/nonexistent/generator.so");
  REQUIRE(!none);
  CHECK(none.error().kind == ErrorKind::environment);
  CHECK(none.error().message.find("/nonexistent/generator.so") != std::string::npos);
  CHECK(none.error().help.find("LLVM 19") != std::string::npos);
  // A library that is something else.
  const Result<const cpu::CodeGeneratorApi*> other = cpu::code_generator("libm.so.6");
  REQUIRE(!other);
  CHECK(other.error().message.find("no code generator") != std::string::npos);
}

TEST_CASE("tiles that no cache holds are refused on the CPU") {
  if (lacks_code_generator()) return;
  CompileOptions options;
  options.backend = Backend::cpu;
  options.tile_q = 5000;
  const Result<Kernel> kernel = compile(Spec::from_string("attention t {}").value(), options);
  REQUIRE(!kernel);
  CHECK(kernel.error().kind == ErrorKind::spec);
}

TEST_CASE("inputs of another type than compiled for are refused on the CPU") {
  if (lacks_code_generator()) return;
  const Spec spec =
      Spec::from_string("attention t {\n input x: float[tokens]\n score = score + x[q]\n}").value();
  CompileOptions options;
  options.backend = Backend::cpu;
  options.dtype = DType::f32;
  options.head_dim = 8;
  const Kernel kernel = compile(spec, options).value();
  ProblemShape s;
  s.dtype = DType::f32;
  Problem problem = make_problem(s);
  problem.inputs["x"] = HostTensor(DType::f64, {13}).fill(0.0);
  const Result<void> done = kernel.run(problem.arguments());
  REQUIRE(!done);
  CHECK(done.error().kind == ErrorKind::spec);
  CHECK(done.error().message.find("compiled for f32") != std::string::npos);
}

}  // namespace vicinal::testing
