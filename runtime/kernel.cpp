#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <future>

#include "compiler/diagnostics/render.h"
#include "runtime/cuda/device_info.h"
#include "runtime/kernel_impl.h"

namespace vicinal {
namespace {

using runtime::Engine;

class Stopwatch {
 public:
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    const std::chrono::duration<double, std::milli> time = now - last_;
    last_ = now;
    return time.count();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

Result<void> check_options(const CompileOptions& options, Backend backend) {
  const auto dim = [&](std::string_view name, std::int64_t value) -> Result<void> {
    if (value >= 8 && value <= 256 && value % 8 == 0) return {};
    return unexpected(ErrorKind::spec,
                      fmt::format("{} is {}: it must be a multiple of 8 from 8 to 256", name, value),
                      "pad the channels with zeros");
  };
  VICINAL_TRY_VOID(dim("head_dim", options.head_dim));
  if (options.value_dim != 0) VICINAL_TRY_VOID(dim("value_dim", options.value_dim));
  const bool known =
      options.dtype == DType::f32 || options.dtype == DType::f16 || options.dtype == DType::bf16;
  if (!known && !(options.dtype == DType::f64 && backend != Backend::cuda))
    return unexpected(
        ErrorKind::spec,
        fmt::format("dtype {} is not supported on {}", name_of(options.dtype), name_of(backend)),
        "use f32, f16 or bf16");
  return {};
}

// Whether kernels can be compiled and run on the device: its driver, its context, NVRTC.
Result<cuda::Context> open_cuda(Engine& engine, int device) {
  VICINAL_TRY(const cuda::DriverApi* api,
              cuda::driver(engine.settings().libcuda_path.value.value_or(std::filesystem::path())));
  VICINAL_TRY(cuda::Context context, cuda::Context::primary(*api, device));
  VICINAL_TRY_VOID(engine.nvrtc());
  return context;
}

Result<emit::KernelOptions> kernel_options(const CompileOptions& options, const ir::Module& module) {
  emit::KernelOptions result;
  if (options.kernel == "reference")
    result.kind = emit::KernelKind::reference;
  else if (!options.kernel.empty() && options.kernel != "portable")
    return unexpected(ErrorKind::usage, fmt::format("there is no kernel `{}`", options.kernel),
                      "there are `portable` and `reference`");
  result.dtype = options.dtype;
  result.head_dim = static_cast<int>(options.head_dim);
  result.value_dim = static_cast<int>(options.value_dim);
  for (const auto& [name, wanted, target] : {std::tuple("query", options.tile_q, &result.tile_q),
                                             std::tuple("key", options.tile_k, &result.tile_k)}) {
    if (wanted == 0) continue;
    if (wanted != 16 && wanted != 32 && wanted != 64)
      return unexpected(ErrorKind::spec, fmt::format("a {} tile of {} is not supported", name, wanted),
                        "the portable kernel has tiles of 16, 32 and 64");
    *target = wanted;
  }
  for (const ir::Input& input : module.inputs) {
    const auto named = options.input_dtypes.find(input.name);
    result.input_dtypes.push_back(named == options.input_dtypes.end() ? emit::default_input_dtype(input.type)
                                                                      : named->second);
  }
  return result;
}

Result<void> compile_for_cuda(Engine& engine, const cuda::Context& context, Kernel::Impl& impl) {
  VICINAL_TRY(impl.kernel_options, kernel_options(impl.options, impl.variant.checked.module));
  VICINAL_TRY(const cuda::DeviceInfo device, cuda::device_info(context.api(), context.device()));
  Stopwatch watch;
  impl.source = emit::emit_cuda(impl.variant.specialized, impl.kernel_options);
  impl.info.emit_ms = watch.lap();
  impl.info.arch = runtime::arch_name(device.capability());
  impl.info.path = fmt::format("cuda/{}", emit::name_of(impl.kernel_options.kind));
  // A mask that reads inputs is planned on the device; the planner is compiled beside the kernel.
  std::future<Result<runtime::DevicePlanner>> planner;
  const bool in_tiles = impl.kernel_options.kind != emit::KernelKind::reference;
  if (in_tiles && std::ranges::count(plan::inputs_read(impl.masks()), true) != 0)
    planner = std::async(std::launch::async, [&] {
      return runtime::DevicePlanner::make(engine, context, impl.variant.specialized, impl.kernel_options,
                                          impl.info.arch);
    });
  VICINAL_TRY(const runtime::CompiledCubin cubin,
              runtime::compile_cubin(engine, impl.source, impl.info.arch));
  impl.info.compile_ms = watch.lap();
  impl.info.key = cubin.digest;
  constexpr std::string_view origins[] = {"memory", "disk", "compiled"};
  impl.info.origin = origins[static_cast<int>(cubin.kernel.outcome.source)];
  if (cubin.kernel.outcome.miss != cache::Miss::none)
    impl.info.miss_reason = cache::name_of(cubin.kernel.outcome.miss);
  const std::string& binary = cubin.kernel.payload->binary;
  VICINAL_TRY(cuda::LoadedKernel loaded,
              cuda::LoadedKernel::load(context, std::as_bytes(std::span(binary.data(), binary.size())),
                                       impl.source.entry));
  impl.info.load_ms = watch.lap();
  impl.info.registers = loaded.attributes().registers;
  impl.info.local_bytes = loaded.attributes().local_bytes;
  impl.info.shared_bytes = loaded.attributes().shared_bytes;
  impl.loaded = std::move(loaded);
  if (planner.valid()) {
    VICINAL_TRY(impl.planner, planner.get());
  }
  return {};
}

}  // namespace

std::string_view version() {
  return VICINAL_VERSION;
}

std::string_view name_of(Backend backend) {
  constexpr std::string_view names[] = {"auto", "interpreter", "cpu", "cuda"};
  return names[static_cast<int>(backend)];
}

Result<Kernel> compile(const Spec& spec, const CompileOptions& wanted) {
  VICINAL_TRY(Engine* const engine, Engine::process());
  auto impl = std::make_shared<Kernel::Impl>();
  impl->spec = spec.shared();
  impl->options = wanted;
  if (impl->options.value_dim == 0) impl->options.value_dim = wanted.head_dim;

  Backend backend = wanted.backend;
  std::optional<cuda::Context> context;
  if (backend == Backend::automatic || backend == Backend::cuda) {
    Result<cuda::Context> opened = open_cuda(*engine, wanted.device);
    if (opened)
      context = *std::move(opened);
    else if (backend == Backend::cuda)
      return opened.forward_error();
    else
      impl->info.miss_reason = opened.error().message;
    backend = context && wanted.dtype != DType::f64 ? Backend::cuda : Backend::cpu;
  }
  VICINAL_TRY_VOID(check_options(impl->options, backend));

  Stopwatch watch;
  const Spec::Impl& source = spec.impl();
  VICINAL_TRY(const check::Bindings bindings,
              runtime::make_bindings(source.variant.checked.module, wanted.params, wanted.dynamic));
  diagnostics::Sink sink;
  std::optional<driver::Variant> variant =
      driver::compile_variant(source.program, source.attention(), bindings, sink);
  if (!variant)
    return unexpected(ErrorKind::spec,
                      diagnostics::render_text(sink.sorted(), source.program.sources, false));
  impl->variant = *std::move(variant);
  impl->info.front_end_ms = watch.lap();
  impl->used = emit::uses(impl->variant.specialized);
  for (const auto& [name, dtype] : wanted.input_dtypes) {
    bool known = false;
    for (const ir::Input& input : impl->variant.checked.module.inputs) known = known || input.name == name;
    if (!known) return unexpected(ErrorKind::usage, fmt::format("the variant has no input `{}`", name));
  }

  impl->info.backend = backend;
  if (backend == Backend::cuda) {
    VICINAL_TRY_VOID(compile_for_cuda(*engine, *context, *impl));
  } else {
    // Until the CPU has a compiler of its own, the interpreter computes for it too.
    impl->info.path = "interpreter";
    impl->info.origin = "none";
  }
  return Kernel(std::move(impl));
}

const CompileInfo& Kernel::info() const {
  return impl_->info;
}
const std::string& Kernel::source() const {
  return impl_->source.text;
}

std::vector<std::pair<std::string, std::uint64_t>> cache_counters() {
  const Result<Engine*> engine = Engine::process();
  return engine ? cache::rows((*engine)->cache().counters())
                : std::vector<std::pair<std::string, std::uint64_t>>();
}

}  // namespace vicinal
