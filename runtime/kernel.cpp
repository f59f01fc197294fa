#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <future>

#include "compiler/diagnostics/render.h"
#include "runtime/cuda/device_info.h"
#include "runtime/kernel_impl.h"
#include "runtime/tuning.h"

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

// Without the tiles and the kind, which follow.
emit::KernelOptions kernel_options(const CompileOptions& options, const ir::Module& module) {
  emit::KernelOptions result;
  result.dtype = options.dtype;
  result.head_dim = static_cast<int>(options.head_dim);
  result.value_dim = static_cast<int>(options.value_dim);
  for (const ir::Input& input : module.inputs) {
    const auto named = options.input_dtypes.find(input.name);
    result.input_dtypes.push_back(named == options.input_dtypes.end() ? emit::default_input_dtype(input.type)
                                                                      : named->second);
  }
  return result;
}

// The kernels of any GPU.
Result<emit::KernelOptions> general_kernel(emit::KernelOptions options, const CompileOptions& wanted) {
  if (wanted.kernel == "reference") options.kind = emit::KernelKind::reference;
  for (const auto& [name, tile, target] : {std::tuple("query", wanted.tile_q, &options.tile_q),
                                           std::tuple("key", wanted.tile_k, &options.tile_k)}) {
    if (tile == 0) continue;
    if (tile != 16 && tile != 32 && tile != 64)
      return unexpected(ErrorKind::spec, fmt::format("a {} tile of {} is not supported", name, tile),
                        "the portable kernel has tiles of 16, 32 and 64");
    *target = tile;
  }
  return options;
}

// The candidates for the Hopper kernel that have the tiles that were asked for. `why`: there are none.
std::vector<emit::KernelOptions> hopper_kernels(const emit::Specialized& variant,
                                                const emit::KernelOptions& options,
                                                const CompileOptions& wanted, int capability,
                                                std::string& why) {
  if (capability != 90) {
    why = fmt::format("the Hopper kernel needs a device of compute capability 9.0, and this one has {}.{}",
                      capability / 10, capability % 10);
    return {};
  }
  if (const auto obstacle = emit::hopper_obstacle(variant, options)) {
    why = *obstacle;
    return {};
  }
  std::vector<emit::KernelOptions> candidates =
      emit::hopper_candidates(variant, options, wanted.schedule >= 0);
  if (wanted.schedule >= 0) {
    if (wanted.schedule >= static_cast<int>(candidates.size())) {
      why = fmt::format("the Hopper kernel has {} schedules for this, and no number {}", candidates.size(),
                        wanted.schedule);
      return {};
    }
    return {candidates[static_cast<std::size_t>(wanted.schedule)]};
  }
  std::erase_if(candidates, [&](const emit::KernelOptions& c) {
    return (wanted.tile_q != 0 && c.tile_q != wanted.tile_q) ||
           (wanted.tile_k != 0 && c.tile_k != wanted.tile_k);
  });
  if (candidates.empty())
    why = wanted.tile_q != 0 || wanted.tile_k != 0 ? "the Hopper kernel has no such tiles"
                                                   : "no schedule of the Hopper kernel fits in shared memory";
  return candidates;
}

Result<void> compile_for_cuda(Engine& engine, const cuda::Context& context, Kernel::Impl& impl) {
  const CompileOptions& wanted = impl.options;
  constexpr std::string_view kKernels[] = {"", "hopper", "portable", "reference"};
  if (std::ranges::find(kKernels, wanted.kernel) == std::end(kKernels))
    return unexpected(ErrorKind::usage, fmt::format("there is no kernel `{}`", wanted.kernel),
                      "there are `hopper`, `portable` and `reference`");
  const emit::Specialized& variant = impl.variant.specialized;
  const emit::KernelOptions options = kernel_options(wanted, impl.variant.checked.module);
  VICINAL_TRY(const cuda::DeviceInfo device, cuda::device_info(context.api(), context.device()));
  CompileInfo& info = impl.info;
  info.arch = runtime::arch_name(device.capability());

  const bool asked = !wanted.kernel.empty() && wanted.kernel != "hopper";
  std::vector<emit::KernelOptions> hopper;
  if (asked)
    info.path_reason = fmt::format("the {} kernel was asked for", wanted.kernel);
  else
    hopper = hopper_kernels(variant, options, wanted, device.capability(), info.path_reason);
  if (hopper.empty() && wanted.kernel == "hopper")
    return unexpected(ErrorKind::spec, info.path_reason, "leave the kernel to be chosen");

  // A mask that reads inputs is planned on the device; the planner is compiled beside the kernel.
  std::future<Result<runtime::DevicePlanner>> planner;
  if (wanted.kernel != "reference" && std::ranges::count(plan::inputs_read(impl.masks()), true) != 0)
    planner = std::async(std::launch::async, [&] {
      return runtime::DevicePlanner::make(engine, context, variant, options, info.arch);
    });
  bool measured = false;
  if (!hopper.empty() && wanted.schedule < 0 && wanted.tile_q == 0 && wanted.tile_k == 0) {
    // Most machines have no such folder, and then nothing is spent on it.
    std::error_code missing;
    const runtime::OptionalPath folder = runtime::tuning_folder(engine.settings(), device.name);
    if (folder && std::filesystem::exists(*folder, missing))
      if (const auto record = runtime::read_tuning(runtime::tuning_file(*folder, variant, hopper.front())))
        measured = runtime::prefer(*record, emit::hopper_candidates(variant, options, true), hopper);
  }
  Stopwatch watch;
  if (!hopper.empty()) {
    // The tensors of a run may be such that the copy engine cannot take them.
    VICINAL_TRY(const emit::KernelOptions general, general_kernel(options, {}));
    impl.fallback = std::async(std::launch::async, [&engine, context, variant, general, arch = info.arch] {
                      return runtime::Program::make(engine, context, variant, {general}, arch);
                    }).share();
    Result<std::shared_ptr<const runtime::Program>> made =
        runtime::Program::make(engine, context, variant, hopper, info.arch);
    if (made) {
      impl.program = *std::move(made);
      info.path_reason = emit::print(impl.program->options.schedule);
      if (measured && impl.program->rejected.empty()) info.path_reason += ", the fastest as measured";
      for (const std::string& reason : impl.program->rejected) info.path_reason += "; rejected " + reason;
    } else if (made.error().kind != ErrorKind::limit || wanted.kernel == "hopper") {
      return made.forward_error();
    } else {
      info.path_reason = made.error().message;
      const Result<std::shared_ptr<const runtime::Program>>& other = impl.fallback.get();
      if (!other) return other.forward_error();
      impl.program = *other;
    }
  } else {
    VICINAL_TRY(const emit::KernelOptions general, general_kernel(options, wanted));
    VICINAL_TRY(impl.program, runtime::Program::make(engine, context, variant, {general}, info.arch));
  }
  info.compile_ms = watch.lap();
  const runtime::Program& program = *impl.program;
  info.path = runtime::path_of(program);
  info.key = program.cubin.digest;
  constexpr std::string_view origins[] = {"memory", "disk", "compiled"};
  const cache::Outcome& outcome = program.cubin.kernel.outcome;
  info.origin = origins[static_cast<int>(outcome.source)];
  if (outcome.miss != cache::Miss::none) info.miss_reason = cache::name_of(outcome.miss);
  info.registers = program.loaded.attributes().registers;
  info.local_bytes = program.loaded.attributes().local_bytes;
  info.shared_bytes = program.loaded.attributes().shared_bytes + program.source.shared_bytes;
  if (planner.valid()) {
    VICINAL_TRY(impl.planner, planner.get());
  }
  return {};
}

// Without a code generator, and for doubles, the interpreter computes on the planned tiles, and `path_reason`
// says why.
Result<void> compile_for_cpu(Engine& engine, Kernel::Impl& impl) {
  CompileInfo& info = impl.info;
  info.path = "interpreter";
  info.origin = "none";
  if (impl.options.dtype == DType::f64) {
    info.path_reason = "generated code does not compute in f64";
    return {};
  }
  const Result<const cpu::CodeGeneratorApi*> generator = engine.code_generator();
  if (!generator) {
    info.path_reason = generator.error().message;
    return {};
  }
  emit::CpuKernelOptions options;
  const emit::KernelOptions common = kernel_options(impl.options, impl.variant.checked.module);
  options.dtype = common.dtype;
  options.head_dim = common.head_dim;
  options.value_dim = common.value_dim;
  options.input_dtypes = common.input_dtypes;
  options.tile_q = impl.options.tile_q;
  options.tile_k = impl.options.tile_k;
  constexpr int kMostTile = 1024;
  if (options.tile_q < 0 || options.tile_k < 0 || options.tile_q > kMostTile || options.tile_k > kMostTile)
    return unexpected(ErrorKind::spec,
                      fmt::format("a tile of {},{} is not supported", options.tile_q, options.tile_k),
                      fmt::format("on the CPU either extent is 1 to {}", kMostTile));
  Stopwatch watch;
  bool known = false;
  VICINAL_TRY(impl.compiled, cpu::CompiledKernel::make(
                                 **generator, emit::cpu_kernel(impl.variant.specialized, options), known));
  info.compile_ms = watch.lap();
  info.path = "cpu/jit";
  info.path_reason = (*generator)->host;
  info.origin = known ? "memory" : "compiled";
  info.key = impl.compiled->digest();
  info.arch = "host";
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
  } else if (backend == Backend::cpu) {
    VICINAL_TRY_VOID(compile_for_cpu(*engine, *impl));
  } else {
    impl->info.path = "interpreter";
    impl->info.origin = "none";
  }
  return Kernel(std::move(impl));
}

const CompileInfo& Kernel::info() const {
  return impl_->info;
}
const std::string& Kernel::source() const {
  static const std::string none;
  return impl_->on_device() ? impl_->program->source.text : none;
}

std::vector<std::pair<std::string, std::uint64_t>> cache_counters() {
  const Result<Engine*> engine = Engine::process();
  return engine ? cache::rows((*engine)->cache().counters())
                : std::vector<std::pair<std::string, std::uint64_t>>();
}

}  // namespace vicinal
