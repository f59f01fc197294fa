// The backward kernels on the host: what the compiler emits is compiled for the processor and run a block at
// a time, a thread at a time, with the arguments that a device would get. Their gradients are held against
// the interpreter's. VICINAL_EMULATE=all runs the whole gallery, which takes long.
#include <dlfcn.h>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>

#include "compiler/driver/compile.h"
#include "compiler/emit/cuda/backward_source.h"
#include "runtime/backward_launch.h"
#include "runtime/cpu/interpreter.h"
#include "runtime/cpu/places.h"
#include "runtime/host/elements.h"
#include "runtime/kernel_impl.h"
#include "runtime/kernel_plan.h"
#include "tests/support/gallery.h"
#include "tests/support/gradient_check.h"
#include "tests/support/kernel_gradients.h"
#include "tests/support/random_problem.h"

namespace vicinal::testing {
namespace {

namespace fs = std::filesystem;

using Entry = void (*)(const void* arguments, unsigned grid, unsigned threads);

// All steps of a variant in one library.
struct Emulated {
  std::vector<emit::BackwardSource> sources;
  std::shared_ptr<void> library;
  std::vector<Entry> entries;
};

// An emitted unit without its include and its struct, which all steps share: its entry.
std::string entry_of(const emit::KernelSource& source) {
  return source.text.substr(source.text.find("extern \"C\""));
}

std::string text_of(const std::vector<emit::BackwardSource>& sources) {
  std::string text = sources[0].kernel.text;
  for (std::size_t i = 1; i < sources.size(); ++i) text += entry_of(sources[i].kernel);
  for (std::size_t i = 0; i < sources.size(); ++i)
    text += fmt::format(
        "extern \"C\" void emulate{}(const void* a, unsigned grid, unsigned threads) {{\n"
        "  cuda_on_host::run(grid, threads, [&] {{ {}(*static_cast<const emitted::Variant::Arguments*>(a)); "
        "}});\n"
        "}}\n",
        i, sources[i].kernel.entry);
  return text;
}

std::optional<Emulated> build(const emit::Specialized& variant, const emit::KernelOptions& options) {
  Emulated result;
  for (const emit::BackwardStep step : emit::kBackwardSteps)
    result.sources.push_back(emit::emit_backward(variant, options, step));
  char pattern[] = "/tmp/vicinal-emulation-XXXXXX";
  const fs::path folder = mkdtemp(pattern), root(VICINAL_SOURCE_DIR);
  std::ofstream(folder / "kernel.cpp") << text_of(result.sources);
  const std::string command = fmt::format(
      "{} -std=c++20 -O1 -w -shared -fPIC -fno-gnu-unique -ffp-contract=off -include {} -I{} -I{} {} -o {} "
      "2> {}",
      VICINAL_CXX_COMPILER, (root / "tests/emulation/cuda_on_host.h").string(),
      (root / "tests/emulation/overlay").string(), (root / "templates").string(),
      (folder / "kernel.cpp").string(), (folder / "kernel.so").string(), (folder / "log").string());
  const bool compiled = std::system(command.c_str()) == 0;
  void* const library = compiled ? dlopen((folder / "kernel.so").c_str(), RTLD_NOW | RTLD_LOCAL) : nullptr;
  if (library == nullptr) {
    std::ifstream log(folder / "log");
    MESSAGE(std::string(std::istreambuf_iterator<char>(log), {}).substr(0, 4000));
    return std::nullopt;
  }
  result.library.reset(library, [](void* handle) { dlclose(handle); });
  for (std::size_t i = 0; i < result.sources.size(); ++i)
    result.entries.push_back(reinterpret_cast<Entry>(dlsym(library, fmt::format("emulate{}", i).c_str())));
  fs::remove_all(folder);
  return result;
}

// What a forward pass leaves: out, the LSE, and out before the output expression.
void run_forward(const Kernel& kernel, const runtime::Problem& p, std::byte* before_output) {
  const cpu::Interpreter interpreter(kernel.impl().variant.checked.module, p);
  interpreter.run(1);
  if (before_output == nullptr) return;
  const std::int64_t queries = p.local_queries();
  for (std::int64_t n = 0; n < p.rows(); ++n) {
    const cpu::RowTrace trace =
        interpreter.trace({n / queries / p.heads, n / queries % p.heads, n % queries});
    for (std::int64_t c = 0; c < p.value_dim; ++c)
      host::store_element(before_output, p.q.dtype, n * p.value_dim + c,
                          trace.out[static_cast<std::size_t>(c)]);
  }
}

bool read(const ir::Module& module, const std::vector<emit::CapturedSlot>& slots, const std::string& name) {
  return std::ranges::any_of(slots, [&](const emit::CapturedSlot& slot) {
    return (slot.param ? module.params[slot.index].name : module.inputs[slot.index].name) == name;
  });
}

struct Trial {
  std::int64_t tokens = 40;
  DType dtype = DType::f32;
  bool poisoned = false;  // what nobody keeps leaves no trace
};

void check_variant(const std::string& name, const Spec& spec, unsigned seed, const Trial& trial) {
  CAPTURE(name);
  CompileOptions compile_options;
  compile_options.backend = Backend::interpreter;
  compile_options.dtype = trial.dtype;
  compile_options.head_dim = 16;
  compile_options.value_dim = 24;
  const Kernel kernel = compile(spec, compile_options).value();
  const emit::Specialized variant = emit::specialize(driver::differentiated(kernel.impl().variant));
  if (emit::backward_obstacle(variant)) return;
  emit::KernelOptions options;
  options.dtype = trial.dtype;
  options.head_dim = 16;
  options.value_dim = 24;
  const std::optional<Emulated> emulated = build(variant, options);
  REQUIRE(emulated.has_value());

  std::mt19937 random(seed);
  ProblemShape whole;  // where it matters that a certain key is there
  whole.queries = whole.keys = {trial.tokens};
  whole.head_dim = 16, whole.value_dim = 24, whole.dtype = trial.dtype;
  std::optional<Problem> problem =
      trial.poisoned ? make_problem(whole) : random_problem(kernel, random, {.tokens = trial.tokens});
  REQUIRE(problem.has_value());
  GradientCase c = gradient_case(kernel, *std::move(problem), random);
  round_given(c, trial.dtype);
  if (trial.poisoned)
    c.problem.k.each([&](const Index& i) {
      if (i[2] == 3) c.problem.k.set(i, NAN), c.problem.v.set(i, INFINITY);
    });
  kernel.backward(c.problem.arguments(), c.given(), c.wanted()).value();

  const ir::Module& module = variant.declarations();
  const runtime::Problem bound = kernel.impl().bind(c.problem.arguments()).value();
  const bool has_output = module.root(ir::Root::output).valid();
  KernelGradients got(c, trial.dtype);
  const auto given = runtime::bind_output_differentials(module, bound, c.given(), "gradient", true).value();
  const auto wanted = runtime::bind_differentials(module, bound, got.wanted(), "gradient").value();
  const std::vector<emit::CapturedSlot>& slots = emulated->sources[0].captured;
  const runtime::BackwardLayout layout =
      runtime::backward_layout(bound, slots, has_output, trial.dtype).value();
  std::vector<std::byte> workspace(layout.bytes + 256, std::byte{0xff});
  std::byte* const memory =
      workspace.data() + (256 - reinterpret_cast<std::uintptr_t>(workspace.data()) % 256) % 256;
  run_forward(kernel, bound, has_output ? memory + layout.out : nullptr);
  runtime::PlanCache shapes;
  const plan::TileShape shape = shapes.shape(module, bound, emit::kBackwardTile, emit::kBackwardTile);
  const runtime::BackwardProblem of{
      bound, shape, given, wanted, layout, reinterpret_cast<std::uint64_t>(memory), has_output};
  runtime::check_backward(of, slots, trial.dtype).value();
  for (std::size_t i = 0; i < emulated->entries.size(); ++i) {
    const auto launch =
        runtime::prepare_backward(of, emulated->sources[i], emit::kBackwardSteps[i], options, module);
    REQUIRE(launch.has_value());
    if (*launch)  // any number of blocks gives the same
      emulated->entries[i](
          (*launch)->arguments.data(),
          emit::kBackwardSteps[i] == emit::BackwardStep::captured ? (*launch)->shape.grid.x : 3,
          (*launch)->shape.block.x);
  }
  // What is read nowhere is cleared by the runtime, not by a kernel.
  for (const auto& [input, x] : c.inputs)
    if (!read(module, slots, input)) got.inputs.at(input).fill(0.0);
  for (const auto& [param, x] : c.params)
    if (!read(module, slots, param)) got.params.at(param).fill(0.0);
  check_kernel_gradients(got, c, trial.dtype);
}

Spec block(const std::string& statements) {
  return Spec::from_string("attention t {\n" + statements + "\n}\n").value();
}

}  // namespace

TEST_CASE("backward kernels on the host agree with the interpreter") {
  // Together everything that a spec can say: sinks, outputs, norms, context, several axes, every
  // normalization, reads in scores, scales, sinks and outputs.
  check_variant(
      "everything of a sequence",
      block("input t: float[heads, 9] learnable\ninput s: float[heads] learnable\n"
            "input r: float[tokens] learnable\nparam a: float = 1 learnable\n"
            "score = a * 2.5 * tanh(score / 2.5) + t[h, clamp(k - q, -4, 4) + 4] * relu(score) + r[q]\n"
            "scale = 0.5 * s[h]\nsink = s[h] + a\nmask = k <= q or k % 5 == 2\nkey = l2norm\n"
            "output = out * sigmoid(lse - s[h]) + r[q]"),
      1, {.tokens = 70});
  check_variant(
      "axes, context and what is not kept",
      block("axis y { window = 3, dilation = 2 }\naxis x { window = 4, stride = 2, causal }\ncontext\n"
            "input t: float[heads] learnable\nquery = l2norm\n"
            "score = score + (0.25 * k * t[h] if k.context else t[h] * (q.x - k.x) * score)\n"
            "mask = (k + q.y) % 3 != 1 if k.context else k.x != 2"),
      2, {});
  check_variant("poison", block("mask = k != 3 and k <= q + 9"), 3, {.tokens = 50, .poisoned = true});
  check_variant("sigmoid",
                block("normalize = sigmoid\ninput w: float[batch, heads, tokens, keys] learnable\n"
                      "score = 0.5 * score * w[b, h, q, k] if q < k + 20 else -inf"),
                4, {});
  check_variant("bf16",
                block("input t: float[heads, 9] learnable\n"
                      "score = score + t[h, clamp(k - q, -4, 4) + 4]\nmask = k <= q"),
                5, {.dtype = DType::bf16});
}

TEST_CASE("backward kernels on the host: the gallery" *
          doctest::skip(std::getenv("VICINAL_EMULATE") == nullptr)) {
  unsigned seed = 0;
  for (const GalleryBlock& variant : learnable_gallery())
    check_variant(variant.name, variant.spec, ++seed, {.dtype = seed % 2 == 0 ? DType::f32 : DType::bf16});
}

}  // namespace vicinal::testing
