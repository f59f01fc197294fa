// Plans a masked variant's tiles on the device, from its captured inputs as they are when the stream gets
// there: two launches before the attention's own, and nothing for the host to wait for.
#pragma once

#include "compiler/emit/cuda/planner_source.h"
#include "runtime/binding/problem.h"
#include "runtime/cuda/loaded_kernel.h"
#include "runtime/engine.h"
#include "runtime/tile_words.h"

namespace vicinal::runtime {

class DevicePlanner {
 public:
  // Compiles the planner, or finds it in the cache. For variants with a mask.
  static Result<DevicePlanner> make(Engine& engine, const cuda::Context& context,
                                    const emit::Specialized& variant, const emit::KernelOptions& options,
                                    const std::string& arch);

  // The list and the tables of a problem in one piece of device memory: offsets in bytes.
  struct Layout {
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
  Result<Layout> layout(const Problem& problem, const plan::TileShape& shape) const;

  // How a kernel walks the list that enqueue() writes to `memory`.
  static cuda::TileWords words(const Layout& layout, cuda::DevicePointer memory, const Problem& problem,
                               const plan::TileShape& shape);
  // In the planner's context, which must be current. `tiles` is from words().
  Result<void> enqueue(const Problem& problem, const Layout& layout, cuda::DevicePointer memory,
                       const cuda::TileWords& tiles, cuda::StreamHandle stream) const;

  const emit::PlannerSource& source() const { return source_; }

 private:
  DevicePlanner(const ir::Module& module, emit::KernelOptions options, emit::PlannerSource source,
                cuda::LoadedKernel rows)
      : module_(&module), options_(std::move(options)), source_(std::move(source)), rows_(std::move(rows)) {}

  const ir::Module* module_;  // the variant's, which outlives this object
  emit::KernelOptions options_;
  emit::PlannerSource source_;
  cuda::LoadedKernel rows_;
  std::optional<cuda::LoadedKernel> tables_;
};

}  // namespace vicinal::runtime
