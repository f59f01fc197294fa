// The kernels for tensor cores on the host: what the compiler emits is compiled for the processor, with
// barriers, copies and matrix products done in software, and held against the interpreter.
#include <doctest/doctest.h>

#include <cstdlib>

#include "compiler/emit/cuda/kernel_choice.h"
#include "runtime/kernel_impl.h"
#include "tests/emulation/forward_on_host.h"
#include "tests/support/accuracy_check.h"
#include "tests/support/gallery.h"
#include "tests/support/random_problem.h"

namespace vicinal::testing {
namespace {

struct Trial {
  const char* text;
  DType dtype = DType::bf16;
  int head_dim = 64, value_dim = 64;
  Index queries = {150}, keys = {150};
  Layout layout = Layout::bhnd;
  std::map<std::string, std::pair<DType, Index>> inputs = {};
};

// The kernel as it would be cut first. `host`: of any backend, with the dtype and dims that are wanted.
std::optional<ForwardOnHost> fastest_schedule(const Kernel& host, emit::KernelKind kind, std::string* why) {
  emit::KernelOptions options;
  options.dtype = host.impl().options.dtype;
  options.head_dim = static_cast<int>(host.impl().options.head_dim);
  options.value_dim = static_cast<int>(host.impl().options.value_dim);
  const emit::Choice choice = emit::choose(kind, host.impl().variant.specialized, options, 90);
  *why = choice.why;
  if (choice.candidates.empty()) return std::nullopt;
  const auto made = ForwardOnHost::make(host, choice.candidates.front());
  REQUIRE(made.has_value());
  return made;
}

void check(const Trial& trial, emit::KernelKind kind = emit::KernelKind::hopper) {
  CAPTURE(trial.text);
  const Spec spec = Spec::from_string(trial.text).value();
  CompileOptions compile_options;
  compile_options.backend = Backend::interpreter;
  compile_options.dtype = trial.dtype;
  compile_options.head_dim = trial.head_dim;
  compile_options.value_dim = trial.value_dim;
  const Kernel host = compile(spec, compile_options).value();
  std::string why;
  const auto kernel = fastest_schedule(host, kind, &why);
  REQUIRE_MESSAGE(kernel.has_value(), why);
  ProblemShape shape;
  shape.batch = 1;
  shape.heads = 2;
  shape.kv_heads = 1;
  shape.head_dim = trial.head_dim;
  shape.value_dim = trial.value_dim;
  shape.queries = trial.queries;
  shape.keys = trial.keys;
  shape.dtype = trial.dtype;
  shape.layout = trial.layout;
  if (spec.has_context()) shape.context = 70;
  shape.lse = host.impl().variant.checked.module.normalize == ir::Normalize::softmax;
  const auto run = [&](Problem& p) { return kernel->run(p); };
  std::mt19937 random(1);
  Problem problem = make_problem(shape);
  for (const auto& [name, tensor] : trial.inputs) {
    HostTensor input(tensor.first, tensor.second);
    input.fill([](const Index& at) { return at.back() % 5 == 1 ? 0.0 : 1.0; });
    problem.inputs[name] = input;
  }
  check_values(host, run, problem);
  check_mask(host, run, problem);
  poison(problem, random);
  check_values(host, run, problem);
}

}  // namespace

TEST_CASE("the Hopper kernel on the host: sequences") {
  check({"attention full {}", DType::f16, 128, 40});
  check({"attention causal { mask = k <= q }"});
  check({"attention window {\n  axis t { window = 90, causal }\n  score = 20.0 * tanh(score / 20.0)\n}",
         DType::f16,
         128,
         128,
         {210},
         {210},
         Layout::bnhd});
  check(
      {"attention skipped {\n  input kept: int[keys]\n  mask = kept[k] > 0 and k % 7 != 3\n"
       "  score = score + 0.01 * (k - q)\n  sink = 0.5\n}",
       DType::bf16,
       64,
       64,
       {70},
       {300},
       Layout::bhnd,
       {{"kept", {DType::i32, {300}}}}});
  check({"attention context {\n  context\n  mask = k.context or k <= q\n  score = score * 0.7\n}"});
}

TEST_CASE("the Hopper kernel on the host: grids of several axes") {
  check({"attention plane {\n  axis y { window = 9 }\n  axis x { window = 12, stride = 4 }\n}",
         DType::bf16,
         64,
         64,
         {17, 27},
         {17, 27}});
  check(
      {"attention volume {\n  axis t { window = 3, causal }\n  axis y { window = 5 }\n  axis x { window = 7 "
       "}\n"
       "  input bias: float[heads, 7]\n  score = score + bias[h, clamp(k.x - q.x, -3, 3) + 3]\n"
       "  mask = k.y % 5 != 2\n}",
       DType::f16,
       64,
       64,
       {5, 9, 13},
       {5, 9, 13},
       Layout::bnhd,
       {{"bias", {DType::f32, {2, 7}}}}});
  check(
      {"attention dilated {\n  axis y { window = 5, dilation = 3 }\n  axis x { window = 9, dilation = 2 }\n}",
       DType::bf16,
       64,
       64,
       {23, 45},
       {23, 45}});
}

TEST_CASE("the tensor-core kernel on the host") {
  const auto mma = emit::KernelKind::mma;
  check({"attention causal { mask = k <= q }", DType::f16, 64, 40}, mma);
  check({"attention tf32 {\n  key = l2norm\n  score = 3.0 * score\n}", DType::f32, 40, 64, {70}, {90}}, mma);
  check({"attention plane {\n  context\n  axis y { window = 5, dilation = 2 }\n  axis x { window = 8 }\n"
         "  normalize = sigmoid\n}",
         DType::bf16,
         64,
         64,
         {13, 20},
         {13, 20},
         Layout::bnhd},
        mma);
}

TEST_CASE("kernels for tensor cores on the host: the gallery" *
          doctest::skip(std::getenv("VICINAL_EMULATE") == nullptr)) {
  unsigned seed = 0;
  for (const GalleryBlock& block : gallery())
    for (const emit::KernelKind kind : {emit::KernelKind::hopper, emit::KernelKind::mma}) {
      CAPTURE(block.name);
      CompileOptions compile_options;
      compile_options.backend = Backend::interpreter;
      compile_options.dtype = ++seed % 4 < 2 ? DType::bf16 : DType::f16;
      compile_options.head_dim = compile_options.value_dim = 64;
      const Kernel host = compile(block.spec, compile_options).value();
      std::string why;
      const auto kernel = fastest_schedule(host, kind, &why);
      if (!kernel) {
        MESSAGE(block.name, ": ", why);
        continue;
      }
      std::mt19937 random(seed);
      for (int attempt = 0; attempt < 20; ++attempt) {
        const std::optional<Problem> problem = random_problem(host, random, {.tokens = 200});
        REQUIRE(problem.has_value());
        if (kernel->obstacle(*problem)) continue;
        const auto run = [&](Problem& p) { return kernel->run(p); };
        check_values(host, run, *problem, more_of(host, random, 200));
        break;
      }
    }
}

}  // namespace vicinal::testing
