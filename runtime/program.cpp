#include "runtime/program.h"

#include <fmt/format.h>

#include <algorithm>

#include "compiler/emit/cuda/kernel_choice.h"
#include "runtime/cuda/device_info.h"
#include "runtime/hopper_boxes.h"
#include "runtime/hopper_launch.h"
#include "runtime/tile_words.h"

namespace vicinal::runtime {
namespace {

// ptxas' warnings about wgmma and setmaxnreg: that registers were not handed out, or that products were put
// in sequence. C7519 alone is for information.
constexpr int kFirstWarning = 7504, kLastWarning = 7520, kHarmless = 7519;

}  // namespace

std::string path_of(const Program& program) {
  return fmt::format("cuda/{}", emit::name_of(program.options.kind));
}

std::optional<std::string> defect(const std::string& log, const cuda::KernelAttributes& attributes,
                                  int most_local_bytes) {
  for (int code = kFirstWarning; code <= kLastWarning; ++code)
    if (code != kHarmless && log.find(fmt::format("(C{})", code)) != std::string::npos)
      return fmt::format("ptxas warns of C{}: its matrix products wait for each other", code);
  if (attributes.local_bytes > most_local_bytes)
    return fmt::format("{} bytes of a thread's registers spill", attributes.local_bytes);
  return std::nullopt;
}

Result<std::shared_ptr<const Program>> Program::make(Engine& engine, const cuda::Context& context,
                                                     const emit::Specialized& variant,
                                                     const std::vector<emit::KernelOptions>& candidates,
                                                     const std::string& arch) {
  VICINAL_TRY(const cuda::DeviceInfo device, cuda::device_info(context.api(), context.device()));
  std::vector<std::string> rejected;
  for (const emit::KernelOptions& options : candidates) {
    emit::KernelSource source = emit::emit_cuda(variant, options);
    if (source.shared_bytes > device.shared_bytes_per_block_optin) {
      rejected.push_back(fmt::format("{}: the device has {} bytes of shared memory and it takes {}",
                                     emit::print_schedule(options), device.shared_bytes_per_block_optin,
                                     source.shared_bytes));
      continue;
    }
    VICINAL_TRY(CompiledCubin cubin, compile_cubin(engine, source, arch));
    const std::string& binary = cubin.kernel.payload->binary;
    VICINAL_TRY(cuda::LoadedKernel loaded,
                cuda::LoadedKernel::load(context, std::as_bytes(std::span(binary.data(), binary.size())),
                                         source.entry, source.shared_bytes));
    const bool hopper = options.kind == emit::KernelKind::hopper;
    const bool scheduled = hopper || options.kind == emit::KernelKind::mma;
    if (const auto wrong = defect(cubin.kernel.payload->log, loaded.attributes()); scheduled && wrong) {
      rejected.push_back(fmt::format("{}: {}", emit::print_schedule(options), *wrong));
      continue;
    }
    const ir::Module& module = variant.declarations();
    std::shared_ptr<Program> program(new Program{options,
                                                 std::move(source),
                                                 module,
                                                 std::move(loaded),
                                                 std::move(cubin),
                                                 std::move(rejected),
                                                 device.multiprocessors,
                                                 false,
                                                 {},
                                                 nullptr});
    program->unequal_rows =
        emit::has_mask(variant) ||
        std::ranges::any_of(module.axes, [](const ir::Axis& a) { return a.causal || a.window.valid(); });
    if (hopper && program->unequal_rows) {
      VICINAL_TRY(program->counters, WorkCounters::make(context));
    }
    return std::shared_ptr<const Program>(std::move(program));
  }
  std::string reasons;
  for (const std::string& reason : rejected) reasons += "\n  " + reason;
  return unexpected(ErrorKind::limit, "no schedule of the kernel comes out well:" + reasons);
}

std::optional<std::string> Program::obstacle(const Problem& problem) const {
  if (!hopper()) return std::nullopt;
  if (auto found = hopper_tensor_obstacle(problem)) return found;
  if (find_shape(problem)) return std::nullopt;
  return fmt::format("no boxes of {} queries and {} keys suit the copy engine", options.tile_q,
                     options.tile_k);
}

std::optional<plan::TileShape> Program::find_shape(const Problem& problem) const {
  return plans.find_shape(
      module, problem, options.tile_q, options.tile_k,
      hopper() ? hopper_shape_rules(problem, options.schedule.skips) : plan::ShapeRules());
}

Result<void> Program::check(const Problem& problem) const {
  VICINAL_TRY_VOID(prepare_launch(source, options, module, problem, tile_words(problem, shape(problem))));
  return {};
}

Result<void> Program::launch(const Problem& problem, const cuda::TileWords& tiles,
                             cuda::StreamHandle stream) const {
  VICINAL_TRY(Launch launch, prepare_launch(source, options, module, problem, tiles));
  const cuda::ContextScope scope(loaded.context());
  if (hopper()) {
    const cuda::DevicePointer pair = counters ? counters->take(stream) : 0;
    VICINAL_TRY(std::vector<std::byte> bytes,
                hopper_prefix(loaded.context().api(), problem, shape_of(tiles), pair, unequal_rows));
    bytes.insert(bytes.end(), launch.arguments.begin(), launch.arguments.end());
    // As long as the kernel's parameter, whose alignment is a tensor map's.
    constexpr std::size_t kAlignment = 64;
    bytes.resize((bytes.size() + kAlignment - 1) / kAlignment * kAlignment);
    launch.arguments = std::move(bytes);
    launch.shape.grid.x =
        std::min(launch.shape.grid.x, static_cast<unsigned>(multiprocessors * options.schedule.blocks));
  }
  launch.shape.dynamic_shared_bytes = static_cast<unsigned>(source.shared_bytes);
  return cuda::launch(loaded, stream, launch.shape, launch.arguments);
}

}  // namespace vicinal::runtime
