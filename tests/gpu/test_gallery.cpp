// Every spec of the gallery, and random ones, on the GPU against the interpreter, through the public API. A
// result may be off by twice the error of a plain program in the same precision, plus two units in the last
// place; masks are compared exactly, by one-hot values. VICINAL_RANDOM_SPECS says how many random specs
// (300).
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <atomic>
#include <cstdlib>

#include "runtime/kernel_impl.h"
#include "tests/support/device_check.h"
#include "tests/support/gallery.h"
#include "tests/support/random_problem.h"
#include "tests/support/random_spec.h"

namespace vicinal::testing {
namespace {

constexpr DType kDTypesOnDevice[] = {DType::f32, DType::f16, DType::bf16};

// VICINAL_GALLERY_KERNEL restricts the gallery to one kernel.
bool is_wanted(std::string_view kernel) {
  const char* const wanted = std::getenv("VICINAL_GALLERY_KERNEL");
  return wanted == nullptr || kernel == wanted;
}

}  // namespace

TEST_CASE("gallery on the GPU") {
  const auto context = context_or_skip();
  if (!context) return;
  std::vector<Job> jobs;
  const std::vector<GalleryBlock> blocks = gallery();
  REQUIRE(blocks.size() > 30);
  for (std::size_t i = 0; i < blocks.size(); ++i)
    for (std::size_t d = 0; d < 3; ++d) {
      for (const char* kernel : {"portable", "reference", "mma", "hopper"}) {
        // The reference kernel in one dtype for each block, in turn.
        if (!is_wanted(kernel) || (kernel == std::string_view("reference") && i % 3 != d)) continue;
        if (takes(kernel, *context, blocks[i].spec, kDTypesOnDevice[d]))
          jobs.push_back(device_job(blocks[i].name, blocks[i].spec, kDTypesOnDevice[d], kernel));
      }
    }
  compile_all(jobs);
  ErrorTable table;
  check_each(jobs.size(), [&](std::size_t n) {
    const Job& job = jobs[n];
    std::mt19937 random(static_cast<unsigned>(n)), more(static_cast<unsigned>(n + jobs.size()));
    CAPTURE(job.name);
    CAPTURE(job.options.kernel);
    CAPTURE(std::string(name_of(job.options.dtype)));
    REQUIRE_MESSAGE(job.tested.has_value(), job.error);
    const bool large_tiles = job.options.kernel == "hopper" || job.options.kernel == "mma";
    for (const std::int64_t tokens : {30, job.options.kernel == "hopper" ? 450 : 200}) {
      std::string why;
      std::optional<Problem> problem = random_problem(*job.host, random, {.tokens = tokens}, &why);
      REQUIRE_MESSAGE(problem.has_value(), why);
      const MoreProblems others = more_of(*job.host, more, tokens);
      check_values(*context, job, *problem, tokens > 30 ? &table : nullptr, others);
      if (job.options.dtype == DType::f32 || (large_tiles && job.options.dtype == DType::bf16))
        for (const Tiles tiles : {Tiles::reached, Tiles::planned, Tiles::planned_in_run})
          check_mask(*context, job, *problem, tiles);
      poison(*problem, random);
      check_values(*context, job, *problem, nullptr, others);
    }
  });
  MESSAGE("\n", table.text());
}

TEST_CASE("random specs on the GPU") {
  const auto context = context_or_skip();
  if (!context) return;
  const char* wanted = std::getenv("VICINAL_RANDOM_SPECS");
  const unsigned count = wanted == nullptr ? 300 : static_cast<unsigned>(std::strtoul(wanted, nullptr, 10));
  std::vector<Job> jobs;
  for (unsigned seed = 1; seed <= count; ++seed) {
    const RandomSpec text = random_spec(seed, true);
    const Spec spec = Spec::from_string(text.text).value(), mask = Spec::from_string(text.mask_only).value();
    const DType dtype = kDTypesOnDevice[seed % 3];
    // All kernels in turn, where they run the spec.
    const auto kernel = [&](const Spec& of, DType type) {
      if (seed % 8 == 0) return "reference";
      const char* const turn = seed % 4 == 1 ? "portable" : seed % 4 == 2 ? "hopper" : "mma";
      return takes(turn, *context, of, type) ? turn : takes("mma", *context, of, type) ? "mma" : "portable";
    };
    const DType mask_dtype = kernel(mask, DType::bf16) == std::string("hopper") ? DType::bf16 : DType::f32;
    jobs.push_back(device_job(text.text, spec, dtype, kernel(spec, dtype)));
    jobs.push_back(device_job(text.mask_only, mask, mask_dtype, kernel(mask, mask_dtype)));
  }
  compile_all(jobs);
  std::atomic<unsigned> without_problem = 0;
  check_each(jobs.size(), [&](std::size_t i) {
    const Job& job = jobs[i];
    std::mt19937 random(static_cast<unsigned>(i)), more(static_cast<unsigned>(i + jobs.size()));
    const std::size_t seed = i / 2 + 1;
    CAPTURE(seed);
    CAPTURE(job.name);
    CAPTURE(std::string(name_of(job.options.dtype)));
    REQUIRE_MESSAGE(job.tested.has_value(), job.error);
    std::optional<Problem> problem = random_problem(*job.host, random, {.tokens = 80});
    if (!problem) {
      ++without_problem;
      return;
    }
    if (i % 2 == 1) {
      check_mask(*context, job, *problem, i % 4 == 1 ? Tiles::planned : Tiles::planned_in_run);
      return;
    }
    const MoreProblems others = more_of(*job.host, more, 80);
    check_values(*context, job, *problem, nullptr, others);
    poison(*problem, random);
    check_values(*context, job, *problem, nullptr, others);
  });
  MESSAGE(jobs.size(), " kernels of ", count, " random specs; no problem found for ", without_problem.load());
  CHECK(without_problem.load() * 20 < jobs.size());
}

}  // namespace vicinal::testing
