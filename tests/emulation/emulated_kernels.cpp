#include "tests/emulation/emulated_kernels.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>

#include "compiler/driver/compile.h"
#include "runtime/backward_launch.h"
#include "runtime/cpu/interpreter.h"
#include "runtime/host/elements.h"
#include "runtime/kernel_impl.h"
#include "tests/emulation/host_library.h"

namespace vicinal::testing {
namespace {

using emit::BackwardStep;

using EntryEitherWay = void(const void* arguments, unsigned grid, unsigned threads, bool backwards);

// An emitted unit without its include and its struct, which all steps share: its entry.
std::string entry_of(const emit::KernelSource& source) {
  return source.text.substr(source.text.find("extern \"C\""));
}

std::string text_of(const std::vector<emit::BackwardSource>& sources) {
  std::string text = sources[0].kernel.text;
  for (std::size_t i = 1; i < sources.size(); ++i) text += entry_of(sources[i].kernel);
  for (std::size_t i = 0; i < sources.size(); ++i)
    text += fmt::format(
        "extern \"C\" void emulate{}(const void* a, unsigned grid, unsigned threads, bool backwards) {{\n"
        "  cuda_on_host::run(grid, threads, [&] {{ {}(*static_cast<const emitted::Variant::Arguments*>(a)); "
        "}}, backwards);\n"
        "}}\n",
        i, sources[i].kernel.entry);
  return text;
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

// Lists in host memory, which is where these kernels read.
class HostLists {
 public:
  HostLists(const Kernel& kernel, const runtime::Problem& problem, const plan::TileShape& shape, Tiles tiles)
      : tiles_(runtime::backward_tiles(problem, shape)) {
    if (tiles == Tiles::in_reach) return;
    plan_ = runtime::plan_backward(kernel.impl().masks(), problem, shape, 1).value();
    if (!plan_) return;
    query_rows_ = runtime::row_runs(plan_->queries);
    key_rows_ = runtime::row_runs(plan_->keys);
    if (tiles == Tiles::none)
      for (auto* rows : {&query_rows_, &key_rows_})
        for (runtime::RowRuns& row : *rows) row.last = row.first;
    const auto address = [](const auto& list) { return reinterpret_cast<std::uint64_t>(list.data()); };
    runtime::place_lists(*plan_, problem, shape, {address(query_rows_), address(plan_->queries.runs())},
                         {address(key_rows_), address(plan_->keys.runs())});
    tiles_ = plan_->tiles;
  }
  const runtime::BackwardTiles& tiles() const { return tiles_; }
  bool any() const { return plan_.has_value(); }

 private:
  runtime::BackwardTiles tiles_;
  std::optional<runtime::BackwardPlan> plan_;
  std::vector<runtime::RowRuns> query_rows_, key_rows_;
};

void check_same_bits(const KernelGradients& x, const KernelGradients& y) {
  for (const auto& tensor : {&KernelGradients::q, &KernelGradients::k, &KernelGradients::v,
                             &KernelGradients::context_k, &KernelGradients::context_v})
    CHECK((x.*tensor).bytes() == (y.*tensor).bytes());
  for (const auto& captured : {&KernelGradients::inputs, &KernelGradients::params})
    for (const auto& [name, t] : x.*captured) {
      CAPTURE(name);
      CHECK(t.bytes() == (y.*captured).at(name).bytes());
    }
}

CompileOptions interpreter_options(const EmulatedOptions& options) {
  CompileOptions result;
  result.backend = Backend::interpreter;
  result.dtype = options.dtype;
  result.head_dim = options.head_dim;
  result.value_dim = options.value_dim;
  return result;
}

}  // namespace

struct EmulatedVariant::Impl {
  Kernel kernel;
  emit::Specialized variant;
  emit::KernelOptions options;
  std::vector<BackwardStep> steps;
  std::vector<emit::BackwardSource> sources;   // of the steps
  mutable std::optional<HostLibrary> library;  // once the kernels are run
  mutable runtime::PlanCache shapes;

  Impl(const Spec& spec, const EmulatedOptions& wanted)
      : kernel(compile(spec, interpreter_options(wanted)).value()),
        variant(emit::specialize(driver::differentiated(kernel.impl().variant))) {
    options.dtype = wanted.dtype;
    options.head_dim = static_cast<int>(wanted.head_dim);
    options.value_dim = static_cast<int>(wanted.value_dim);
    for (const Mode mode : wanted.modes) {
      if (mode == Mode::forward)
        steps.push_back(BackwardStep::tangents);
      else
        steps.insert(steps.end(), std::begin(emit::kBackwardSteps), std::end(emit::kBackwardSteps));
    }
    for (const BackwardStep step : steps) sources.push_back(emit::emit_backward(variant, options, step));
  }

  const ir::Module& module() const { return variant.declarations(); }
  const std::vector<emit::CapturedSlot>& slots() const { return sources[0].captured; }
  bool has_output() const { return module().root(ir::Root::output).valid(); }
  plan::TileShape shape(const runtime::Problem& bound) const {
    return shapes.shape(module(), bound, emit::kBackwardTile, emit::kBackwardTile);
  }
  // Whether the runtime clears the gradient, and not a kernel.
  bool clears(const std::string& name) const {
    return std::ranges::none_of(slots(), [&](const emit::CapturedSlot& slot) {
      return !slot.in_place &&
             (slot.param ? module().params[slot.index].name : module().inputs[slot.index].name) == name;
    });
  }

  // Any number of blocks gives the same, except where it says how a sum is cut.
  void run(BackwardStep step, const runtime::BackwardProblem& of, bool backwards) const {
    if (!library) library = HostLibrary::build(text_of(sources));
    REQUIRE(library.has_value());
    const auto number = static_cast<std::size_t>(std::ranges::find(steps, step) - steps.begin());
    const auto launch = runtime::prepare_backward(of, sources[number], step, options, module()).value();
    if (launch)
      library->symbol<EntryEitherWay>(fmt::format("emulate{}", number))(
          launch->arguments.data(), step == BackwardStep::captured ? launch->shape.grid.x : 3,
          launch->shape.block.x, backwards);
  }
};

EmulatedVariant::EmulatedVariant(const Spec& spec, const EmulatedOptions& options)
    : impl_(std::make_unique<Impl>(spec, options)) {}
EmulatedVariant::~EmulatedVariant() = default;

const Kernel& EmulatedVariant::kernel() const {
  return impl_->kernel;
}
DType EmulatedVariant::dtype() const {
  return impl_->options.dtype;
}

bool EmulatedVariant::has_lists(const Problem& problem) const {
  const runtime::Problem bound = kernel().impl().bind(problem.arguments()).value();
  return HostLists(kernel(), bound, impl_->shape(bound), Tiles::listed).any();
}

KernelGradients EmulatedVariant::gradients(GradientCase& c, const Emulation& how) const {
  const runtime::Problem bound = kernel().impl().bind(c.problem.arguments()).value();
  KernelGradients got(c, dtype());
  const auto given =
      runtime::bind_output_differentials(impl_->module(), bound, c.given(), "gradient", true).value();
  const auto wanted = runtime::bind_differentials(impl_->module(), bound, got.wanted(), "gradient").value();
  const runtime::BackwardLayout layout =
      runtime::backward_layout(bound, impl_->slots(), impl_->has_output(), dtype()).value();
  std::vector<std::byte> workspace(layout.bytes + 256, std::byte{0xff});
  std::byte* const memory =
      workspace.data() + (256 - reinterpret_cast<std::uintptr_t>(workspace.data()) % 256) % 256;
  run_forward(kernel(), bound, impl_->has_output() ? memory + layout.out : nullptr);
  const plan::TileShape shape = impl_->shape(bound);
  const HostLists lists(kernel(), bound, shape, how.tiles);
  const runtime::BackwardProblem of{bound,
                                    shape,
                                    lists.tiles(),
                                    given,
                                    wanted,
                                    layout,
                                    reinterpret_cast<std::uint64_t>(memory),
                                    impl_->has_output()};
  runtime::check_backward(of, impl_->slots(), dtype()).value();
  for (auto* captured : {&got.inputs, &got.params})
    for (auto& [name, x] : *captured)
      if (impl_->clears(name)) x.fill(0.0);
  for (const BackwardStep step : emit::kBackwardSteps) impl_->run(step, of, how.backwards);
  return got;
}

EmulatedVariant::OutputTangents EmulatedVariant::tangents(GradientCase& c, const KernelGradients& tangents,
                                                          const Emulation& how) const {
  const runtime::Problem bound = kernel().impl().bind(c.problem.arguments()).value();
  OutputTangents got{HostTensor(dtype(), c.d_out.shape()).fill(7.0), {}};
  OutputDifferentials wanted{.out = got.out.view(), .lse = std::nullopt};
  if (!c.d_lse.shape().empty()) {
    got.lse = HostTensor(DType::f32, c.d_lse.shape()).fill(7.0);
    wanted.lse = got.lse.view();
  }
  const auto from = runtime::bind_differentials(impl_->module(), bound, tangents.wanted(), "tangent").value();
  const auto to =
      runtime::bind_output_differentials(impl_->module(), bound, wanted, "tangent", false).value();
  const runtime::BackwardLayout layout =
      runtime::backward_layout(bound, impl_->slots(), false, dtype()).value();
  const plan::TileShape shape = impl_->shape(bound);
  const HostLists lists(kernel(), bound, shape, how.tiles);
  const runtime::BackwardProblem of{bound, shape, lists.tiles(), to, from, layout, 0, false, "tangent"};
  runtime::check_backward(of, impl_->slots(), dtype()).value();
  impl_->run(BackwardStep::tangents, of, how.backwards);
  return got;
}

void check_gradients(const EmulatedVariant& variant, Problem problem, std::mt19937& random, Tiles tiles) {
  GradientCase c = gradient_case(variant.kernel(), std::move(problem), random);
  round_given(c, variant.dtype());
  variant.kernel().backward(c.problem.arguments(), c.given(), c.wanted()).value();
  const KernelGradients got = variant.gradients(c, {.tiles = tiles});
  check_kernel_gradients(variant.kernel(), {&got}, c, variant.dtype());
  check_same_bits(got, variant.gradients(c, {.tiles = Tiles::in_reach, .backwards = true}));
}

void check_tangents(const EmulatedVariant& variant, Problem problem, std::mt19937& random, Tiles tiles) {
  GradientCase c = gradient_case(variant.kernel(), std::move(problem), random);
  const KernelGradients tangents = random_tangents(c, variant.dtype(), random);
  HostTensor out(DType::f64, c.d_out.shape()), lse(DType::f64, c.d_lse.shape());
  OutputDifferentials wanted{.out = out.view(), .lse = std::nullopt};
  if (!c.d_lse.shape().empty()) wanted.lse = lse.view();
  variant.kernel().jvp(c.problem.arguments(), tangents.wanted(), wanted).value();
  const EmulatedVariant::OutputTangents got = variant.tangents(c, tangents, {.tiles = tiles});
  check_differential("out", got.out, out, variant.dtype());
  if (wanted.lse) check_differential("lse", got.lse, lse, variant.dtype());
  const EmulatedVariant::OutputTangents again =
      variant.tangents(c, tangents, {.tiles = Tiles::in_reach, .backwards = true});
  CHECK(got.out.bytes() == again.out.bytes());
  CHECK(got.lse.bytes() == again.lse.bytes());
}

Spec block_of(const std::string& statements) {
  return Spec::from_string("attention t {\n" + statements + "\n}\n").value();
}

}  // namespace vicinal::testing
