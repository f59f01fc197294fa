// Gradients and tangents on the GPU against the interpreter, through the public API: the gallery with
// everything learnable in every dtype, random specs, poisoned tensors, and that the same arguments give the
// same bits.
#include <doctest/doctest.h>

#include <atomic>

#include "tests/support/device_gradients.h"
#include "tests/support/gallery.h"
#include "tests/support/random_problem.h"
#include "tests/support/random_spec.h"

namespace vicinal::testing {
namespace {

constexpr DType kDTypesOnDevice[] = {DType::f32, DType::f16, DType::bf16};

}  // namespace

TEST_CASE("gradients on the GPU: the gallery") {
  const auto context = context_or_skip();
  if (!context) return;
  std::vector<GradientJob> wanted;
  for (const GalleryBlock& block : learnable_gallery())
    wanted.push_back({block.name, block.spec, kDTypesOnDevice[wanted.size() % 3]});
  CHECK(wanted.size() > 100);
  const std::vector<CompiledGradients> compiled = compile_all(wanted);
  check_each(compiled.size(), [&](std::size_t n) {
    const CompiledGradients& kernel = compiled[n];
    std::mt19937 random(static_cast<unsigned>(n));
    CAPTURE(kernel.name);
    CAPTURE(std::string(name_of(kernel.dtype)));
    REQUIRE_MESSAGE(kernel.device.has_value(), kernel.error);
    for (const std::int64_t tokens : {30, 150})
      if (auto problem = random_problem(*kernel.host, random, {.tokens = tokens})) {
        check_gradients(*context, kernel, *problem, random);
        check_tangents(*context, kernel, *std::move(problem), random);
      }
  });
}

TEST_CASE("gradients on the GPU: random specs") {
  const auto context = context_or_skip();
  if (!context) return;
  std::vector<GradientJob> wanted;
  for (unsigned seed = 1; seed <= 60; ++seed) {
    const std::string text = random_spec(seed, true).text;
    wanted.push_back({text, Spec::from_string(text).value(), DType::f32});
  }
  std::atomic<unsigned> compared = 0;
  const std::vector<CompiledGradients> compiled = compile_all(wanted);
  check_each(compiled.size(), [&](std::size_t n) {
    const CompiledGradients& kernel = compiled[n];
    std::mt19937 random(static_cast<unsigned>(n));
    CAPTURE(kernel.name);
    REQUIRE_MESSAGE(kernel.device.has_value(), kernel.error);
    // Near a kink fp32 may come to lie on its other side.
    std::optional<Problem> problem;
    for (int attempt = 0; attempt < 4 && !problem; ++attempt) {
      problem = random_problem(*kernel.host, random, {.tokens = 24});
      if (problem && !keeps_from_kinks(*kernel.host, *problem, 1e-4)) problem.reset();
    }
    if (!problem) return;
    check_gradients(*context, kernel, *std::move(problem), random);
    ++compared;
  });
  MESSAGE(compared.load(), " random specs");
  CHECK(compared.load() * 3 > wanted.size());
}

TEST_CASE("gradients on the GPU: what no query keeps leaves no trace") {
  const auto context = context_or_skip();
  if (!context) return;
  const Spec spec = Spec::from_string("attention t {\n  mask = k != 3 and k <= q + 40\n}\n").value();
  for (const DType dtype : kDTypesOnDevice) {
    const CompiledGradients kernel = compile_both({"poison", spec, dtype});
    REQUIRE_MESSAGE(kernel.device.has_value(), kernel.error);
    ProblemShape shape;
    shape.queries = shape.keys = {130};
    shape.head_dim = 64, shape.value_dim = 48, shape.dtype = dtype;
    Problem problem = make_problem(shape);
    poison(problem, 3);
    std::mt19937 random(5);
    check_gradients(*context, kernel, std::move(problem), random);
  }
}

TEST_CASE("gradients on the GPU: what is missing is said") {
  const auto context = context_or_skip();
  if (!context) return;
  const Spec spec = Spec::from_string("attention t {}").value();
  const CompiledGradients kernel = compile_both({"plain", spec, DType::f32});
  REQUIRE_MESSAGE(kernel.device.has_value(), kernel.error);
  ProblemShape shape;
  shape.head_dim = 64, shape.value_dim = 48, shape.dtype = DType::f32;
  std::mt19937 random(1);
  GradientCase c = gradient_case(*kernel.host, make_problem(shape), random);
  RunArguments a = c.problem.arguments();
  const auto message = [&](const Kernel& on) {
    const Result<void> result = on.backward(a, c.given(), c.wanted());
    return result ? std::string() : result.error().message;
  };
  CHECK(message(*kernel.device)
            .starts_with("the workspace has 0 bytes, and the gradients of this problem take "));
  a.lse.reset();
  CHECK(message(*kernel.device) == "the lse is missing: on a device gradients are computed from it");
  CompileOptions options;
  options.backend = Backend::cuda;
  options.dtype = DType::f32;
  options.head_dim = 64, options.value_dim = 48;
  CHECK(message(compile(spec, options).value()) == "the kernel was compiled without gradients");
}

}  // namespace vicinal::testing
