#include "runtime/device_planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "runtime/cuda/launch.h"
#include "runtime/cuda_kernel.h"

namespace vicinal::runtime {
namespace {

// Runs that a row has room for. Documents, prefixes and windows take a few.
constexpr std::int64_t kRunCapacity = 32;
// As templates/vicinal/planning/input_ranges.cuh has it.
constexpr std::int64_t kBlock = 32;
constexpr std::int64_t kMaxTableBlocks = 4096;

std::size_t aligned(std::size_t bytes) {
  return (bytes + 255) / 256 * 256;
}

std::int64_t ceiling(std::int64_t x, std::int64_t unit) {
  return (x + unit - 1) / unit;
}

DevicePlanner::Layout::Table table(const CapturedInput& x, int along, int set_bytes, std::size_t& end) {
  DevicePlanner::Layout::Table t{end, x.data == nullptr ? 0 : 1, 0, 0};
  for (std::size_t i = 0; i < x.extents.size(); ++i)
    if (static_cast<int>(i) != along) t.lines *= x.extents[i];
  t.blocks = ceiling(x.extents[static_cast<std::size_t>(along)], kBlock);
  t.stretches = ceiling(t.blocks, kBlock);
  end += aligned(static_cast<std::size_t>(t.lines * (t.blocks + t.stretches) * set_bytes));
  return t;
}

}  // namespace

Result<DevicePlanner> DevicePlanner::make(Engine& engine, const cuda::Context& context,
                                          const emit::Specialized& variant,
                                          const emit::KernelOptions& options, const std::string& arch) {
  emit::PlannerSource source = emit::emit_planner(variant, options);
  VICINAL_TRY(const CompiledCubin compiled, compile_cubin(engine, source.rows, arch));
  const std::string& binary = compiled.kernel.payload->binary;
  const auto bytes = std::as_bytes(std::span(binary.data(), binary.size()));
  VICINAL_TRY(cuda::LoadedKernel rows, cuda::LoadedKernel::load(context, bytes, source.rows.entry));
  DevicePlanner planner(variant.declarations(), options, std::move(source), std::move(rows));
  if (!planner.source_.tables.empty()) {
    VICINAL_TRY(planner.tables_, cuda::LoadedKernel::load(context, bytes, planner.source_.tables_entry));
  }
  return planner;
}

Result<DevicePlanner::Layout> DevicePlanner::layout(const Problem& problem,
                                                    const plan::TileShape& shape) const {
  Layout l;
  l.slices = plan::make_slices(problem, source_.reads_batch, source_.reads_head, source_.reads_kv_head);
  l.rows = plan::TileGrid(problem, shape).rows() * l.slices.count();
  // No row has more tiles than this.
  const std::int64_t most = (problem.local_keys() + 1) + problem.context;
  l.run_capacity = std::clamp<std::int64_t>(most, 1, kRunCapacity);
  if (l.rows * l.run_capacity > std::numeric_limits<std::uint32_t>::max())
    return unexpected(ErrorKind::limit,
                      fmt::format("the tile plan has {} rows, more than a device can list", l.rows),
                      "use larger tiles, or split the batch or the heads");
  l.runs = aligned(static_cast<std::size_t>(l.rows) * sizeof(RowRuns));
  l.bytes = l.runs + aligned(static_cast<std::size_t>(l.rows * l.run_capacity) * sizeof(plan::Run));
  for (std::size_t i = 0; i < source_.tables.size(); ++i)
    l.tables.push_back(table(problem.inputs[source_.tables[i].input], source_.tables[i].along,
                             source_.set_bytes[i], l.bytes));
  return l;
}

cuda::TileWords DevicePlanner::words(const Layout& layout, cuda::DevicePointer memory, const Problem& problem,
                                     const plan::TileShape& shape) {
  cuda::TileWords words = tile_words(problem, shape, layout.slices, memory, memory + layout.runs);
  words.run_capacity = layout.run_capacity;
  return words;
}

Result<void> DevicePlanner::enqueue(const Problem& problem, const Layout& layout, cuda::DevicePointer memory,
                                    const cuda::TileWords& tiles, cuda::StreamHandle stream) const {
  if (layout.rows == 0) return {};
  VICINAL_TRY(cuda::ParameterWords parameters,
              parameter_words(source_.rows.parameters, options_, *module_, problem));
  std::int64_t stretches = 0;
  for (const Layout::Table& t : layout.tables) {
    parameters.add_pointer(memory + t.offset);
    for (const std::int64_t value : {t.lines, t.blocks, t.stretches}) parameters.add_int(value);
    stretches = std::max(stretches, t.lines * t.stretches);
  }
  const std::vector<std::byte> arguments = cuda::write_arguments(forward_words(problem, tiles), parameters);
  if (tables_ && stretches > 0) {
    cuda::LaunchShape shape;
    shape.grid.x =
        static_cast<unsigned>(std::min(ceiling(stretches, source_.table_threads / kBlock), kMaxTableBlocks));
    shape.block.x = static_cast<unsigned>(source_.table_threads);
    VICINAL_TRY_VOID(cuda::launch(*tables_, stream, shape, arguments));
  }
  cuda::LaunchShape shape;
  shape.grid.x = static_cast<unsigned>(ceiling(layout.rows, source_.rows.rows));
  shape.block.x = static_cast<unsigned>(source_.rows.threads);
  return cuda::launch(rows_, stream, shape, arguments);
}

}  // namespace vicinal::runtime
