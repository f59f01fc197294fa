// What a planner of tiles is launched with: its memory and its arguments.
#pragma once

#include "compiler/emit/cuda/planner_source.h"
#include "runtime/binding/problem.h"
#include "runtime/cuda/launch.h"
#include "runtime/tile_words.h"

namespace vicinal::runtime {

// The list and the tables of a problem in one piece of device memory: offsets in bytes.
struct PlannerLayout {
  emit::TileList list = emit::TileList::runs;
  plan::Slices slices;
  std::int64_t rows = 0;          // of all slices
  std::int64_t run_capacity = 0;  // of a row; one that needs more visits all its tiles
  std::size_t runs = 0;           // where they start; the rows' runs come first
  struct Table {
    std::size_t offset;
    std::int64_t lines, blocks, stretches;
  };
  std::vector<Table> tables;
  std::size_t bytes = 0;
};
// Errors (limit): a list that 32-bit words cannot count.
Result<PlannerLayout> planner_layout(const emit::PlannerSource& source, const Problem& problem,
                                     const plan::TileShape& shape);

// How a kernel finds what the planner writes to `memory`.
cuda::TileWords planned_words(const PlannerLayout& layout, cuda::DevicePointer memory, const Problem& problem,
                              const plan::TileShape& shape);

struct PlannerLaunch {
  std::vector<std::byte> arguments;         // of both kernels
  std::optional<cuda::LaunchShape> tables;  // nothing where none are to be filled
  cuda::LaunchShape rows;
};
// `options` and `module`: the planned variant's. `tiles` is from planned_words(). Nothing where there is
// nothing to plan.
Result<std::optional<PlannerLaunch>> prepare_planner(const emit::PlannerSource& source,
                                                     const emit::KernelOptions& options,
                                                     const ir::Module& module, const Problem& problem,
                                                     const PlannerLayout& layout, cuda::DevicePointer memory,
                                                     const cuda::TileWords& tiles);

}  // namespace vicinal::runtime
