// Gradients and tangents on the GPU against the interpreter, through the public API: the gallery with
// everything learnable in every dtype, random specs, poisoned tensors, and that the same arguments give the
// same bits.
#include <doctest/doctest.h>

#include "compiler/driver/compile.h"
#include "compiler/emit/cuda/backward_source.h"
#include "runtime/cuda/device_memory.h"
#include "runtime/host/parallel.h"
#include "runtime/kernel_impl.h"
#include "tests/support/device_check.h"
#include "tests/support/gallery.h"
#include "tests/support/kernel_gradients.h"
#include "tests/support/random_problem.h"
#include "tests/support/random_spec.h"

namespace vicinal::testing {
namespace {

// Copies of a case's tensors on the device, and of what comes back.
class DeviceCase {
 public:
  DeviceCase(const cuda::Context& context, const Kernel& kernel, GradientCase& c, KernelGradients& gradients)
      : scope_(context), context_(context), kernel_(kernel), c_(c), gradients_(gradients) {}

  // Reverse mode. `plans`: tiles are listed where they can be.
  Result<void> run(bool plans) {
    VICINAL_TRY(const cuda::Stream stream, cuda::Stream::create(context_.api()));
    VICINAL_TRY(RunArguments a, upload_arguments());
    if (plans) VICINAL_TRY_VOID(kernel_.prepare(a, stream.handle()));
    VICINAL_TRY_VOID(kernel_.run(a, stream.handle()));

    OutputDifferentials given = c_.given();
    VICINAL_TRY_VOID(upload(c_.d_out, *given.out));
    if (given.lse) VICINAL_TRY_VOID(upload(c_.d_lse, *given.lse));
    VICINAL_TRY(const Differentials wanted, upload_differentials(true));
    VICINAL_TRY(const Support support, kernel_.supports(a));
    VICINAL_TRY(cuda::DeviceBuffer workspace,
                cuda::DeviceBuffer::allocate(context_.api(), support.gradient_workspace_bytes));
    VICINAL_TRY_VOID(workspace.fill(0xff, stream.handle()));
    a.workspace = {reinterpret_cast<void*>(workspace.address()), workspace.size()};
    VICINAL_TRY_VOID(kernel_.backward(a, given, wanted, stream.handle()));
    return download(stream);
  }

  // Forward mode, from what the gradients' places hold.
  Result<void> push(HostTensor& out, HostTensor& lse) {
    VICINAL_TRY(const cuda::Stream stream, cuda::Stream::create(context_.api()));
    VICINAL_TRY(const RunArguments a, upload_arguments());
    VICINAL_TRY(const Differentials given, upload_differentials(false));
    OutputDifferentials wanted{.out = out.view(), .lse = std::nullopt};
    VICINAL_TRY_VOID(result(out, *wanted.out));
    if (a.lse) {
      wanted.lse = lse.view();
      VICINAL_TRY_VOID(result(lse, *wanted.lse));
    }
    VICINAL_TRY_VOID(kernel_.jvp(a, given, wanted, stream.handle()));
    return download(stream);
  }

 private:
  Result<RunArguments> upload_arguments() {
    RunArguments a = c_.problem.arguments();
    VICINAL_TRY_VOID(upload(c_.problem.q, a.q));
    VICINAL_TRY_VOID(upload(c_.problem.k, a.k));
    VICINAL_TRY_VOID(upload(c_.problem.v, a.v));
    VICINAL_TRY_VOID(upload(c_.problem.out, a.out));
    if (a.lse) VICINAL_TRY_VOID(upload(c_.problem.lse, *a.lse));
    if (a.context_k) {
      VICINAL_TRY_VOID(upload(c_.problem.context_k, *a.context_k));
      VICINAL_TRY_VOID(upload(c_.problem.context_v, *a.context_v));
    }
    for (auto& [name, tensor] : a.inputs) VICINAL_TRY_VOID(upload(c_.problem.inputs.at(name), tensor));
    return a;
  }
  Result<Differentials> upload_differentials(bool results) {
    Differentials d = gradients_.wanted();
    const auto move = [&](HostTensor& host, Tensor& view) {
      return results ? result(host, view) : upload(host, view);
    };
    VICINAL_TRY_VOID(move(gradients_.q, *d.q));
    VICINAL_TRY_VOID(move(gradients_.k, *d.k));
    VICINAL_TRY_VOID(move(gradients_.v, *d.v));
    if (gradients_.context) {
      VICINAL_TRY_VOID(move(gradients_.context_k, *d.context_k));
      VICINAL_TRY_VOID(move(gradients_.context_v, *d.context_v));
    }
    for (auto& [name, t] : gradients_.inputs) VICINAL_TRY_VOID(move(t, d.inputs.at(name)));
    for (auto& [name, t] : gradients_.params) VICINAL_TRY_VOID(move(t, d.params.at(name)));
    return d;
  }
  Result<void> download(const cuda::Stream& stream) {
    for (const auto& [host, buffer] : results_)
      VICINAL_TRY_VOID(buffers_[buffer].read(host->bytes(), stream.handle()));
    return stream.synchronize();
  }

  Result<void> upload(const HostTensor& host, Tensor& view) {
    VICINAL_TRY(cuda::DeviceBuffer buffer, cuda::DeviceBuffer::copy_of(context_.api(), host.bytes()));
    const std::uint64_t first =
        buffer.address() + static_cast<std::uint64_t>(host.origin()) * size_of(host.dtype());
    view.data = host.bytes().empty() ? nullptr : reinterpret_cast<void*>(first);
    buffers_.push_back(std::move(buffer));
    return {};
  }
  Result<void> result(HostTensor& host, Tensor& view) {
    VICINAL_TRY_VOID(upload(host, view));
    results_.emplace_back(&host, buffers_.size() - 1);
    return {};
  }

  const cuda::ContextScope scope_;
  const cuda::Context& context_;
  const Kernel& kernel_;
  GradientCase& c_;
  KernelGradients& gradients_;
  std::vector<cuda::DeviceBuffer> buffers_;
  std::vector<std::pair<HostTensor*, std::size_t>> results_;
};

struct Compiled {
  std::string name = {};
  DType dtype = DType::f32;
  std::optional<Kernel> device = {}, host = {};
  std::string error = {};
};

Compiled compile_both(const std::string& name, const Spec& spec, DType dtype) {
  Compiled result{name, dtype, {}, {}, {}};
  CompileOptions options;
  options.dtype = dtype;
  options.head_dim = 64;
  options.value_dim = 48;
  options.backend = Backend::cuda;
  options.kernel = "portable";  // of the forward pass, whichever it is
  options.gradients = true;
  Result<Kernel> device = compile(spec, options);
  options.backend = Backend::interpreter;
  Result<Kernel> host = compile(spec, options);
  if (device && host)
    result.device = *std::move(device), result.host = *std::move(host);
  else
    result.error = (device ? host : device).error().message;
  return result;
}

struct Wanted {
  std::string name;
  Spec spec;
  DType dtype;
};
// NVRTC takes most of the time, so all kernels are compiled first, on all processors.
std::vector<Compiled> compile_all(const std::vector<Wanted>& wanted) {
  std::vector<Compiled> compiled(wanted.size());
  host::parallel_for(static_cast<std::int64_t>(wanted.size()), host::default_threads(), [&](std::int64_t n) {
    const Wanted& w = wanted[static_cast<std::size_t>(n)];
    compiled[static_cast<std::size_t>(n)] = compile_both(w.name, w.spec, w.dtype);
  });
  return compiled;
}

void check(const cuda::Context& context, const Compiled& kernel, Problem problem, std::mt19937& random) {
  GradientCase c = gradient_case(*kernel.host, std::move(problem), random);
  round_given(c, kernel.dtype);
  kernel.host->backward(c.problem.arguments(), c.given(), c.wanted()).value();
  KernelGradients first(c, kernel.dtype), second(c, kernel.dtype), planned(c, kernel.dtype);
  for (KernelGradients* g : {&first, &second, &planned}) {
    const Result<void> done = DeviceCase(context, *kernel.device, c, *g).run(g == &planned);
    REQUIRE_MESSAGE(done.has_value(), (done ? "" : done.error().message));
  }
  check_kernel_gradients(first, c, kernel.dtype);
  check_kernel_gradients(planned, c, kernel.dtype);
  CHECK(first.q.bytes() == second.q.bytes());
  CHECK(first.k.bytes() == second.k.bytes());
  CHECK(first.v.bytes() == second.v.bytes());
  for (const auto& [name, t] : first.inputs) CHECK(t.bytes() == second.inputs.at(name).bytes());
}

void check_tangents(const cuda::Context& context, const Compiled& kernel, Problem problem,
                    std::mt19937& random) {
  GradientCase c = gradient_case(*kernel.host, std::move(problem), random);
  KernelGradients tangents = random_tangents(c, kernel.dtype, random);
  HostTensor out(DType::f64, c.d_out.shape()), lse(DType::f64, c.d_lse.shape());
  OutputDifferentials wanted{.out = out.view(), .lse = std::nullopt};
  if (!c.d_lse.shape().empty()) wanted.lse = lse.view();
  kernel.host->jvp(c.problem.arguments(), tangents.wanted(), wanted).value();
  HostTensor got_out(kernel.dtype, c.d_out.shape()), got_lse(DType::f32, c.d_lse.shape());
  const Result<void> done = DeviceCase(context, *kernel.device, c, tangents).push(got_out, got_lse);
  REQUIRE_MESSAGE(done.has_value(), (done ? "" : done.error().message));
  check_differential("out", got_out, out, kernel.dtype);
  if (wanted.lse) check_differential("lse", got_lse, lse, kernel.dtype);
}

constexpr DType kDTypesOnDevice[] = {DType::f32, DType::f16, DType::bf16};

}  // namespace

TEST_CASE("gradients on the GPU: the gallery") {
  const auto context = context_or_skip();
  if (!context) return;
  std::vector<Wanted> wanted;
  for (const GalleryBlock& block : learnable_gallery())
    wanted.push_back({block.name, block.spec, kDTypesOnDevice[wanted.size() % 3]});
  CHECK(wanted.size() > 100);
  std::mt19937 random(31);
  for (const Compiled& kernel : compile_all(wanted)) {
    CAPTURE(kernel.name);
    CAPTURE(std::string(name_of(kernel.dtype)));
    CHECK_MESSAGE(kernel.device.has_value(), kernel.error);
    if (!kernel.device) continue;
    for (const std::int64_t tokens : {30, 150})
      if (auto problem = random_problem(*kernel.host, random, {.tokens = tokens})) {
        check(*context, kernel, *problem, random);
        check_tangents(*context, kernel, *std::move(problem), random);
      }
  }
}

TEST_CASE("gradients on the GPU: random specs") {
  const auto context = context_or_skip();
  if (!context) return;
  std::vector<Wanted> wanted;
  for (unsigned seed = 1; seed <= 60; ++seed) {
    const std::string text = random_spec(seed, true).text;
    wanted.push_back({text, Spec::from_string(text).value(), DType::f32});
  }
  unsigned compared = 0;
  std::mt19937 random(32);
  for (const Compiled& kernel : compile_all(wanted)) {
    CAPTURE(kernel.name);
    CHECK_MESSAGE(kernel.device.has_value(), kernel.error);
    if (!kernel.device) continue;
    // Near a kink fp32 may come to lie on its other side.
    std::optional<Problem> problem;
    for (int attempt = 0; attempt < 4 && !problem; ++attempt) {
      problem = random_problem(*kernel.host, random, {.tokens = 24});
      if (problem && !keeps_from_kinks(*kernel.host, *problem, 1e-4)) problem.reset();
    }
    if (!problem) continue;
    check(*context, kernel, *std::move(problem), random);
    ++compared;
  }
  MESSAGE(compared, " random specs");
  CHECK(compared * 3 > wanted.size());
}

TEST_CASE("gradients on the GPU: what no query keeps leaves no trace") {
  const auto context = context_or_skip();
  if (!context) return;
  const Spec spec = Spec::from_string("attention t {\n  mask = k != 3 and k <= q + 40\n}\n").value();
  for (const DType dtype : kDTypesOnDevice) {
    const Compiled kernel = compile_both("poison", spec, dtype);
    REQUIRE_MESSAGE(kernel.device.has_value(), kernel.error);
    ProblemShape shape;
    shape.queries = shape.keys = {130};
    shape.head_dim = 64, shape.value_dim = 48, shape.dtype = dtype;
    Problem problem = make_problem(shape);
    poison(problem, 3);
    std::mt19937 random(5);
    check(*context, kernel, std::move(problem), random);
  }
}

TEST_CASE("gradients on the GPU: what is missing is said") {
  const auto context = context_or_skip();
  if (!context) return;
  const Spec spec = Spec::from_string("attention t {}").value();
  const Compiled kernel = compile_both("plain", spec, DType::f32);
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
