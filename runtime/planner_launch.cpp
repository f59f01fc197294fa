#include "runtime/planner_launch.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

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

PlannerLayout::Table table(const CapturedInput& x, int along, int set_bytes, std::size_t& end) {
  PlannerLayout::Table t{end, x.data == nullptr ? 0 : 1, 0, 0};
  for (std::size_t i = 0; i < x.extents.size(); ++i)
    if (static_cast<int>(i) != along) t.lines *= x.extents[i];
  t.blocks = ceiling(x.extents[static_cast<std::size_t>(along)], kBlock);
  t.stretches = ceiling(t.blocks, kBlock);
  end += aligned(static_cast<std::size_t>(t.lines * (t.blocks + t.stretches) * set_bytes));
  return t;
}

}  // namespace

Result<PlannerLayout> planner_layout(const emit::PlannerSource& source, const Problem& problem,
                                     const plan::TileShape& shape) {
  PlannerLayout l;
  l.list = source.list;
  l.slices = plan::make_slices(problem, source.reads_batch, source.reads_head, source.reads_kv_head);
  l.rows = plan::TileGrid(problem, shape).rows() * l.slices.count();
  if (source.list == emit::TileList::pairs) {
    const std::int64_t words = ceiling(plan::TileGrid(problem, shape, plan::Side::keys).grid_rows(), 32);
    l.bytes = aligned(static_cast<std::size_t>(l.rows * 2 * words) * sizeof(std::uint32_t));
  } else {
    // No row has more tiles than this.
    const std::int64_t most = (problem.local_keys() + 1) + problem.context;
    l.run_capacity = std::clamp<std::int64_t>(most, 1, kRunCapacity);
    if (l.rows * l.run_capacity > std::numeric_limits<std::uint32_t>::max())
      return unexpected(ErrorKind::limit,
                        fmt::format("the tile plan has {} rows, more than a device can list", l.rows),
                        "use larger tiles, or split the batch or the heads");
    l.runs = aligned(static_cast<std::size_t>(l.rows) * sizeof(RowRuns));
    l.bytes = l.runs + aligned(static_cast<std::size_t>(l.rows * l.run_capacity) * sizeof(plan::Run));
  }
  for (std::size_t i = 0; i < source.tables.size(); ++i)
    l.tables.push_back(
        table(problem.inputs[source.tables[i].input], source.tables[i].along, source.set_bytes[i], l.bytes));
  return l;
}

cuda::TileWords planned_words(const PlannerLayout& layout, cuda::DevicePointer memory, const Problem& problem,
                              const plan::TileShape& shape) {
  const bool lists = layout.list == emit::TileList::runs;
  cuda::TileWords words =
      tile_words(problem, shape, layout.slices, lists ? memory : 0, lists ? memory + layout.runs : 0);
  words.run_capacity = layout.run_capacity;
  if (!lists) words.pairs = memory;
  return words;
}

Result<std::optional<PlannerLaunch>> prepare_planner(const emit::PlannerSource& source,
                                                     const emit::KernelOptions& options,
                                                     const ir::Module& module, const Problem& problem,
                                                     const PlannerLayout& layout, cuda::DevicePointer memory,
                                                     const cuda::TileWords& tiles) {
  if (layout.rows == 0) return std::optional<PlannerLaunch>();
  VICINAL_TRY(cuda::ParameterWords parameters,
              parameter_words(source.rows.parameters, options, module, problem));
  std::int64_t stretches = 0;
  for (const PlannerLayout::Table& t : layout.tables) {
    parameters.add_pointer(memory + t.offset);
    for (const std::int64_t value : {t.lines, t.blocks, t.stretches}) parameters.add_int(value);
    stretches = std::max(stretches, t.lines * t.stretches);
  }
  PlannerLaunch launch;
  launch.arguments = cuda::write_arguments(forward_words(problem, tiles), parameters);
  if (stretches > 0) {
    cuda::LaunchShape& shape = launch.tables.emplace();
    shape.grid.x =
        static_cast<unsigned>(std::min(ceiling(stretches, source.table_threads / kBlock), kMaxTableBlocks));
    shape.block.x = static_cast<unsigned>(source.table_threads);
  }
  launch.rows.grid.x = static_cast<unsigned>(ceiling(layout.rows, source.rows.rows));
  launch.rows.block.x = static_cast<unsigned>(source.rows.threads);
  return std::optional(std::move(launch));
}

}  // namespace vicinal::runtime
