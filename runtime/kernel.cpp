#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <future>

#include "compiler/diagnostics/render.h"
#include "compiler/emit/cuda/kernel_choice.h"
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
  result.precision = options.precision;
  result.head_dim = static_cast<int>(options.head_dim);
  result.value_dim = static_cast<int>(options.value_dim);
  for (const ir::Input& input : module.inputs) {
    const auto named = options.input_dtypes.find(input.name);
    result.input_dtypes.push_back(named == options.input_dtypes.end() ? emit::default_input_dtype(input.type)
                                                                      : named->second);
  }
  return result;
}

bool tiles_wanted(const CompileOptions& wanted) {
  return wanted.tile_q != 0 || wanted.tile_k != 0;
}

// Leaves the candidates that have the tiles that were asked for.
emit::Choice with_tiles(emit::Choice choice, const CompileOptions& wanted) {
  if (choice.candidates.empty()) return choice;
  std::erase_if(choice.candidates, [&](const emit::KernelOptions& c) {
    return (wanted.tile_q != 0 && c.tile_q != wanted.tile_q) ||
           (wanted.tile_k != 0 && c.tile_k != wanted.tile_k);
  });
  if (choice.candidates.empty()) choice.why = "the kernel has no such tiles";
  return choice;
}

// The schedules of a kernel that suit what was asked for.
emit::Choice scheduled_kernels(emit::KernelKind kind, const emit::Specialized& variant,
                               const emit::KernelOptions& options, const CompileOptions& wanted,
                               int capability) {
  if (wanted.schedule < 0) return with_tiles(emit::choose(kind, variant, options, capability), wanted);
  emit::Choice choice = emit::choose(kind, variant, options, capability, true);
  if (choice.candidates.empty()) return choice;
  if (wanted.schedule >= static_cast<int>(choice.candidates.size()))
    return {{},
            fmt::format("the {} kernel has {} schedules for this, and no number {}", emit::name_of(kind),
                        choice.candidates.size(), wanted.schedule)};
  return {{choice.candidates[static_cast<std::size_t>(wanted.schedule)]}, {}};
}

// Puts first what was measured to be the fastest on the device. Most machines have no such record, and then
// nothing is spent on it.
bool prefer_measured(Engine& engine, const cuda::DeviceInfo& device, const emit::Specialized& variant,
                     const CompileOptions& wanted, std::vector<emit::KernelOptions>& candidates) {
  if (candidates.size() < 2 || wanted.schedule >= 0 || tiles_wanted(wanted)) return false;
  std::error_code missing;
  const runtime::OptionalPath folder = runtime::tuning_folder(engine.settings(), device.name);
  if (!folder || !std::filesystem::exists(*folder, missing)) return false;
  const emit::KernelOptions first = candidates.front();
  const auto record = runtime::read_tuning(runtime::tuning_file(*folder, variant, first));
  return record &&
         runtime::prefer(*record,
                         emit::choose(first.kind, variant, first, device.capability(), true).candidates,
                         candidates);
}

// The kernels that take tensors with any strides: on tensor cores, and in the end on any GPU.
Result<std::vector<emit::KernelOptions>> general_kernels(const emit::Specialized& variant,
                                                         emit::KernelOptions options,
                                                         const CompileOptions& wanted, int capability) {
  std::vector<emit::KernelOptions> result;
  if (wanted.kernel.empty() || wanted.kernel == "mma" || wanted.kernel == "hopper") {
    emit::Choice choice = scheduled_kernels(emit::KernelKind::mma, variant, options, wanted, capability);
    if (wanted.kernel == "mma" && choice.candidates.empty())
      return unexpected(ErrorKind::spec, choice.why, "leave the kernel and its tiles to be chosen");
    result = std::move(choice.candidates);
    if (wanted.kernel == "mma" || (tiles_wanted(wanted) && !result.empty())) return result;
  }
  options.kind = wanted.kernel == "reference" ? emit::KernelKind::reference : emit::KernelKind::portable;
  for (const auto& [name, tile, target] : {std::tuple("query", wanted.tile_q, &options.tile_q),
                                           std::tuple("key", wanted.tile_k, &options.tile_k)}) {
    if (tile == 0) continue;
    if (tile != 16 && tile != 32 && tile != 64)
      return unexpected(ErrorKind::spec, fmt::format("a {} tile of {} is not supported", name, tile),
                        "the portable kernel has tiles of 16, 32 and 64");
    *target = tile;
  }
  result.push_back(options);
  return result;
}

std::string how_it_is_cut(const runtime::Program& program, bool measured) {
  std::string text = emit::print_schedule(program.options);
  if (measured && program.rejected.empty()) text += ", the fastest as measured";
  for (const std::string& reason : program.rejected) text += "; rejected " + reason;
  return text;
}

Result<void> compile_for_cuda(Engine& engine, const cuda::Context& context, Kernel::Impl& impl) {
  const CompileOptions& wanted = impl.options;
  constexpr std::string_view kKernels[] = {"", "hopper", "mma", "portable", "reference"};
  if (std::ranges::find(kKernels, wanted.kernel) == std::end(kKernels))
    return unexpected(ErrorKind::usage, fmt::format("there is no kernel `{}`", wanted.kernel),
                      "there are `hopper`, `mma`, `portable` and `reference`");
  const emit::Specialized& variant = impl.variant.specialized;
  const emit::KernelOptions options = kernel_options(wanted, impl.variant.checked.module);
  VICINAL_TRY(const cuda::DeviceInfo device, cuda::device_info(context.api(), context.device()));
  CompileInfo& info = impl.info;
  info.arch = runtime::arch_name(device.capability());

  const bool asked = !wanted.kernel.empty() && wanted.kernel != "hopper";
  std::vector<emit::KernelOptions> hopper;
  if (asked) {
    info.path_reason = fmt::format("the {} kernel was asked for", wanted.kernel);
  } else {
    emit::Choice choice =
        scheduled_kernels(emit::KernelKind::hopper, variant, options, wanted, device.capability());
    hopper = std::move(choice.candidates);
    info.path_reason = std::move(choice.why);
  }
  if (hopper.empty() && wanted.kernel == "hopper")
    return unexpected(ErrorKind::spec, info.path_reason, "leave the kernel to be chosen");

  // A mask that reads inputs is planned on the device; the planner is compiled beside the kernel.
  std::future<Result<runtime::DevicePlanner>> planner;
  if (wanted.kernel != "reference" && std::ranges::count(plan::inputs_read(impl.masks()), true) != 0)
    planner = std::async(std::launch::async, [&] {
      return runtime::DevicePlanner::make(engine, context, variant, options, info.arch);
    });
  bool measured = prefer_measured(engine, device, variant, wanted, hopper);
  Stopwatch watch;
  if (!hopper.empty()) {
    // The tensors of a run may be such that the copy engine cannot take them.
    VICINAL_TRY(const std::vector<emit::KernelOptions> general,
                general_kernels(variant, options, {}, device.capability()));
    impl.fallback = std::async(std::launch::async, [&engine, context, variant, general, arch = info.arch] {
                      return runtime::Program::make(engine, context, variant, general, arch);
                    }).share();
    Result<std::shared_ptr<const runtime::Program>> made =
        runtime::Program::make(engine, context, variant, hopper, info.arch);
    if (made) {
      impl.program = *std::move(made);
      info.path_reason = how_it_is_cut(*impl.program, measured);
    } else if (made.error().kind != ErrorKind::limit || wanted.kernel == "hopper") {
      return made.forward_error();
    } else {
      info.path_reason = made.error().message;
      const Result<std::shared_ptr<const runtime::Program>>& other = impl.fallback.get();
      if (!other) return other.forward_error();
      impl.program = *other;
    }
  } else {
    VICINAL_TRY(std::vector<emit::KernelOptions> general,
                general_kernels(variant, options, wanted, device.capability()));
    measured = prefer_measured(engine, device, variant, wanted, general);
    VICINAL_TRY(impl.program, runtime::Program::make(engine, context, variant, general, info.arch));
    if (impl.program->options.kind == emit::KernelKind::mma)
      info.path_reason += "; " + how_it_is_cut(*impl.program, measured);
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
  if (wanted.gradients) {
    VICINAL_TRY(impl.gradients, runtime::BackwardProgram::make(engine, context, impl.variant, options,
                                                               info.arch, wanted.deterministic));
    auto [path, reason] = impl.gradients->path();
    info.gradient_path = std::move(path);
    info.gradient_path_reason = std::move(reason);
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
  options.target = impl.options.cpu_target;
  constexpr int kMostTile = 1024;
  if (options.tile_q < 0 || options.tile_k < 0 || options.tile_q > kMostTile || options.tile_k > kMostTile)
    return unexpected(ErrorKind::spec,
                      fmt::format("a tile of {},{} is not supported", options.tile_q, options.tile_k),
                      fmt::format("on the CPU either extent is 1 to {}", kMostTile));
  Stopwatch watch;
  bool known = false;
  VICINAL_TRY(
      std::shared_ptr<const cpu::CompiledKernel> compiled,
      cpu::CompiledKernel::make(**generator, emit::cpu_kernel(impl.variant.specialized, options), known));
  impl.executor.emplace(std::move(compiled), impl.variant.checked.module);
  info.compile_ms = watch.lap();
  info.path = "cpu/jit";
  info.path_reason = options.target.empty() ? (*generator)->host : options.target;
  info.origin = known ? "memory" : "compiled";
  info.key = impl.executor->compiled().digest();
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
