// The gallery as CUDA: every block is emitted as text of ours alone, the same from a printed and reparsed
// module, and compiles for every architecture. With VICINAL_EXHAUSTIVE=1 each block does for all of them and
// for both kernels; otherwise one at a time, in rotation.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <mutex>

#include "compiler/driver/compile.h"
#include "compiler/emit/cuda/backward_source.h"
#include "compiler/emit/cuda/hopper_backward_source.h"
#include "compiler/emit/cuda/kernel_choice.h"
#include "compiler/emit/cuda/products.h"
#include "compiler/ir/text.h"
#include "runtime/cpu/interpreter.h"
#include "runtime/engine.h"
#include "runtime/host/parallel.h"
#include "runtime/kernel_impl.h"
#include "tests/support/emitted_text.h"
#include "tests/support/gallery.h"
#include "tests/support/random_problem.h"

namespace vicinal::testing {
namespace {

constexpr const char* kArchs[] = {"sm_80", "sm_90a", "sm_100a", "sm_120a"};

struct Job {
  std::string name, arch;
  emit::KernelSource source;
};

// A step of the portable kernels, and those for Hopper where they run the variant.
void add_backward(const GalleryBlock& block, emit::KernelOptions how, std::size_t number,
                  std::vector<Job>& jobs) {
  const emit::Specialized variant = emit::specialize(driver::differentiated(block.spec.impl().variant));
  const emit::BackwardStep step = emit::kBackwardSteps[number / 4 % std::size(emit::kBackwardSteps)];
  jobs.push_back({fmt::format("{}, backward {}", block.name, emit::name_of(step)), kArchs[number % 4],
                  emit::emit_backward(variant, how, step).kernel});
  how.head_dim = how.value_dim = number % 8 < 4 ? 64 : 128;
  const emit::HopperBackwardChoice choice = emit::choose_hopper_backward(variant, how);
  if (!choice.schedule) return;
  for (const emit::HopperBackwardStep hopper : emit::kHopperBackwardSteps)
    jobs.push_back({fmt::format("{}, Hopper backward {}", block.name, emit::name_of(hopper)), "sm_90a",
                    emit::emit_hopper_backward(variant, how, *choice.schedule, hopper)});
}

}  // namespace

TEST_CASE("gallery: emitted text is ours alone, and survives printing") {
  const std::vector<GalleryBlock> blocks = gallery();
  REQUIRE(blocks.size() > 30);
  for (const GalleryBlock& block : blocks) {
    CAPTURE(block.name);
    const driver::Variant& variant = block.spec.impl().variant;
    const Result<ir::Module> again = ir::parse(ir::print(variant.checked.module));
    REQUIRE(again.has_value());
    for (const auto kind : emit::kKernelKinds) {
      for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
        emit::KernelOptions how;
        how.dtype = dtype;
        const emit::Choice choice = emit::choose(kind, variant.specialized, how, 90);
        if (choice.candidates.empty()) continue;
        how = choice.candidates.front();
        const emit::KernelSource source = emit::emit_cuda(variant.specialized, how);
        std::string text = source.text;
        if (kind == emit::KernelKind::hopper) {
          // Its instructions depend on nothing that a spec says.
          const std::string products = emit::products_struct(how);
          REQUIRE(text.find(products) != std::string::npos);
          text.erase(text.find(products), products.size());
        }
        const auto forbidden = forbidden_in(text, source.entry);
        CHECK_MESSAGE(!forbidden, forbidden.value_or(""));
        CHECK(emit::emit_cuda(emit::specialize(passes::run_pipeline(*again)), how).text == source.text);
      }
    }
    if (!emit::has_mask(variant.specialized)) continue;
    const emit::PlannerSource planner = emit::emit_planner(variant.specialized, {});
    const auto forbidden = forbidden_in(planner.rows.text, planner.rows.entry);
    CHECK_MESSAGE(!forbidden, forbidden.value_or(""));
  }
}

TEST_CASE("emitted planners read by a table wherever an index may be several numbers to them") {
  struct Case {
    std::string index;
    std::optional<int> along;  // of the table's lines; none: no table
  };
  for (const Case& c : {Case{"h, 0", {}},
                        {"h, (3 * b + head_dim) // keys", {}},
                        {"h, q", 1},
                        {"q, h", 0},
                        {"h, int(1.0 / float(b))", 1},
                        {"h, 1 if f[b] < 0.5 else 0", 1},
                        {"q, int(f[b])", 0}}) {
    CAPTURE(c.index);
    const Spec spec =
        Spec::from_string(fmt::format("attention t {{\n input f: float[batch]\n input n: int[9, "
                                      "9]\n mask = k <= n[{}]\n}}",
                                      c.index))
            .value();
    const emit::PlannerSource planner = emit::emit_planner(spec.impl().variant.specialized, {});
    REQUIRE(planner.tables.size() == (c.along ? 1u : 0u));
    if (c.along) CHECK(planner.tables[0].along == *c.along);
  }
}

TEST_CASE("emitted code clamps an index that wrapping could move out of range") {
  struct Case {
    std::string index;
    bool clamped;
  };
  // Elements of an input can be any int, the smallest one included, whose absolute value and negation are
  // itself.
  for (const Case& c : {Case{"at[k]", true},
                        {"clamp(at[k], 0, 6)", false},
                        {"at[k] % 7", false},
                        {"at[k] & 3", false},
                        {"min(abs(at[k]), 6)", true},
                        {"min(max(at[k], 0) + 1, 6)", true},
                        {"min(max(-at[k], -6) + 6, 6)", true},
                        {"min(at[k] & 7, 6)", false},
                        {"max(min(at[k], 6), 0)", false},
                        {"min(-min(at[k], 0), 6)", true},
                        {"clamp(at[k] * 65537 + 3, 0, 6)", false}}) {
    CAPTURE(c.index);
    const Spec spec = Spec::from_string(fmt::format("attention t {{\n input table: float[7]\n input at: "
                                                    "int[keys]\n score = score + table[{}]\n}}",
                                                    c.index))
                          .value();
    const std::string text = emit::emit_cuda(spec.impl().variant.specialized, {}).text;
    CHECK((text.find("clamp_index") != std::string::npos) == c.clamped);
  }
}

TEST_CASE("gallery: a printed and reparsed variant computes the same") {
  std::mt19937 random(11);
  for (const GalleryBlock& block : gallery()) {
    CAPTURE(block.name);
    CompileOptions options;
    options.backend = Backend::interpreter;
    options.dtype = DType::f64;
    options.head_dim = 8;
    const Kernel kernel = compile(block.spec, options).value();
    std::string why;
    const std::optional<Problem> problem = random_problem(kernel, random, {.tokens = 24}, &why);
    REQUIRE_MESSAGE(problem.has_value(), why);
    const runtime::Problem bound = kernel.impl().bind(problem->arguments()).value();
    const ir::Module again = ir::parse(ir::print(kernel.impl().variant.checked.module)).value();
    const cpu::Interpreter first(kernel.impl().variant.checked.module, bound), second(again, bound);
    for (std::int64_t token = 0; token < bound.local_queries(); token += 1 + bound.local_queries() / 10) {
      const cpu::Row row{bound.batch - 1, bound.heads - 1, token};
      CHECK(first.kept(row) == second.kept(row));
      CHECK(first.scores(row) == second.scores(row));
      CHECK(first.row(row).out == second.row(row).out);
    }
  }
}

TEST_CASE("gallery: every block compiles through NVRTC") {
  runtime::Engine& engine = *runtime::Engine::process().value();
  const Result<cuda::NvrtcCompiler> compiler = engine.nvrtc();
  if (!compiler) {
    MESSAGE("skipped: ", compiler.error().message);
    return;
  }
  const char* exhaustive = std::getenv("VICINAL_EXHAUSTIVE");
  const bool all = exhaustive != nullptr && std::string_view(exhaustive) == "1";
  const std::vector<GalleryBlock> blocks = gallery();
  constexpr DType dtypes[] = {DType::bf16, DType::f16, DType::f32};
  std::vector<Job> jobs;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    for (std::size_t n = 0; n < (all ? 8u : 1u); ++n) {
      emit::KernelOptions how;
      const emit::Specialized& variant = blocks[i].spec.impl().variant.specialized;
      const std::string arch = kArchs[(i + n) % 4];
      how.dtype = dtypes[(i + n) % 3];
      how.head_dim = how.value_dim = 64;
      const auto add = [&](emit::KernelKind kind, const std::string& on, int capability) {
        const emit::Choice choice = emit::choose(kind, variant, how, capability);
        if (choice.candidates.empty()) return;
        jobs.push_back({fmt::format("{}, {}", blocks[i].name, emit::name_of(kind)), on,
                        emit::emit_cuda(variant, choice.candidates.front())});
      };
      // One that runs everywhere and, less often since they take longer, those of tensor cores.
      add((all ? n / 4 : i / 4 % 2) == 0 ? emit::KernelKind::portable : emit::KernelKind::reference, arch,
          80);
      if (all || i % 3 == 0) add(emit::KernelKind::mma, arch, 80);
      how.dtype = dtypes[i % 2];
      if (n == 0 && (all || i % 8 == 0)) add(emit::KernelKind::hopper, "sm_90a", 90);
      if (n == 0 && (all || i % 4 == 1)) add_backward(blocks[i], how, i, jobs);
      if (n % 4 == 0 && emit::has_mask(variant))
        jobs.push_back(
            {blocks[i].name + ", planner", arch,
             emit::emit_planner(variant, how, i % 2 == 0 ? emit::TileList::runs : emit::TileList::pairs)
                 .rows});
    }
  }
  const std::vector<cuda::HeaderText> headers = engine.headers().value();
  std::mutex mutex;
  std::vector<double> times;
  std::vector<std::string> failures;
  host::parallel_for(static_cast<std::int64_t>(jobs.size()), 2, [&](std::int64_t n) {
    const Job& job = jobs[static_cast<std::size_t>(n)];
    cuda::CompileRequest request;
    request.source = job.source.text;
    request.entry = job.source.entry;
    request.arch = job.arch;
    request.headers = headers;
    const Result<cuda::Compiled> compiled = compiler->compile(request);
    const std::scoped_lock lock(mutex);
    if (compiled)
      times.push_back(compiled->milliseconds);
    else
      failures.push_back(fmt::format("{} for {}: {}\n{}", job.name, job.arch, compiled.error().message,
                                     compiled.error().help));
  });
  for (const std::string& failure : failures) FAIL_CHECK(failure);
  REQUIRE(times.size() == jobs.size());
  std::sort(times.begin(), times.end());
  MESSAGE(fmt::format("{} blocks, {} compiles: median {:.0f} ms, max {:.0f} ms", blocks.size(), jobs.size(),
                      times[times.size() / 2], times.back()));
}

}  // namespace vicinal::testing
