// The backward kernels that the compiler emits for every variant of the gallery: their text is ours alone,
// and a sample of it compiles.
#include <doctest/doctest.h>

#include <algorithm>
#include <tuple>

#include "compiler/driver/compile.h"
#include "compiler/emit/cuda/backward_source.h"
#include "runtime/engine.h"
#include "runtime/kernel_impl.h"
#include "tests/support/emitted_text.h"
#include "tests/support/gallery.h"
#include "tests/support/random_spec.h"

namespace vicinal::testing {
namespace {

emit::KernelOptions options_for(std::size_t n) {
  constexpr DType dtypes[] = {DType::f32, DType::f16, DType::bf16};
  constexpr std::pair<int, int> dims[] = {{64, 64}, {128, 128}, {8, 40}, {256, 256}, {96, 32}};
  emit::KernelOptions options;
  options.dtype = dtypes[n % 3];
  std::tie(options.head_dim, options.value_dim) = dims[n % 5];
  return options;
}

std::vector<emit::BackwardStep> all_steps() {
  std::vector<emit::BackwardStep> steps(std::begin(emit::kBackwardSteps), std::end(emit::kBackwardSteps));
  steps.push_back(emit::BackwardStep::tangents);
  return steps;
}

}  // namespace

TEST_CASE("backward kernels: emitted text is ours alone") {
  std::size_t kernels = 0, captured = 0;
  for (const GalleryBlock& block : learnable_gallery()) {
    CAPTURE(block.name);
    const emit::Specialized variant = emit::specialize(driver::differentiated(block.spec.impl().variant));
    for (const emit::BackwardStep step : all_steps()) {
      const emit::BackwardSource source = emit::emit_backward(variant, options_for(kernels), step);
      const auto forbidden = forbidden_in(source.kernel.text, source.kernel.entry);
      CHECK_MESSAGE(!forbidden, forbidden.value_or(""));
      ++kernels;
      captured += source.captured.size();
    }
  }
  for (unsigned seed = 1; seed <= 300; ++seed) {
    const std::string text = random_spec(seed, seed % 2 == 0).text;
    CAPTURE(text);
    const Spec spec = Spec::from_string(text).value();
    const emit::Specialized variant = emit::specialize(driver::differentiated(spec.impl().variant));
    const emit::BackwardSource source =
        emit::emit_backward(variant, options_for(seed), emit::BackwardStep::queries);
    const auto forbidden = forbidden_in(source.kernel.text, source.kernel.entry);
    CHECK_MESSAGE(!forbidden, forbidden.value_or(""));
  }
  CHECK(kernels > 500);
  CHECK(captured > 200);
}

TEST_CASE("backward kernels: every kind compiles through NVRTC, for every kind of architecture") {
  const Result<runtime::Engine*> engine = runtime::Engine::process();
  REQUIRE(engine.has_value());
  const Result<cuda::NvrtcCompiler> compiler = (*engine)->nvrtc();
  if (!compiler) {
    MESSAGE("skipped: ", compiler.error().message);
    return;
  }
  std::size_t n = 0;
  for (const GalleryBlock& block : learnable_gallery()) {
    constexpr std::string_view sample[] = {"swin:swin",
                                           "video_context:video_context",
                                           "learned_sinks:learned_sinks",
                                           "cosine_attention:cosine_attention",
                                           "s01_s09_scores:s6_softcap",
                                           "s19_s29_hooks:s26_sink_as_output",
                                           "sigmoid_attention:sigmoid_attention",
                                           "mla_rope:mla_rope"};
    if (std::ranges::find(sample, block.name) == std::end(sample)) continue;
    CAPTURE(block.name);
    const emit::Specialized variant = emit::specialize(driver::differentiated(block.spec.impl().variant));
    for (const emit::BackwardStep step : all_steps()) {
      CAPTURE(std::string(name_of(step)));
      const emit::KernelSource source = emit::emit_backward(variant, options_for(n + n / 5), step).kernel;
      cuda::CompileRequest request;
      request.source = source.text;
      request.entry = source.entry;
      request.arch = n % 2 == 0 ? "sm_75" : "sm_90a";
      request.headers = (*engine)->headers().value();
      const Result<cuda::Compiled> compiled = compiler->compile(request);
      CHECK_MESSAGE(compiled.has_value(), (compiled ? "" : compiled.error().message + compiled.error().help));
      ++n;
    }
  }
  CHECK(n == 48);
}

}  // namespace vicinal::testing
