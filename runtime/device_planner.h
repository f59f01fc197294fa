// Plans a masked variant's tiles on the device, from its captured inputs as they are when the stream gets
// there: two launches before the attention's own, and nothing for the host to wait for.
#pragma once

#include "runtime/cuda/loaded_kernel.h"
#include "runtime/engine.h"
#include "runtime/planner_launch.h"

namespace vicinal::runtime {

class DevicePlanner {
 public:
  // Compiles the planner, or finds it in the cache. For variants with a mask.
  static Result<DevicePlanner> make(Engine& engine, const cuda::Context& context,
                                    const emit::Specialized& variant, const emit::KernelOptions& options,
                                    const std::string& arch, emit::TileList list = emit::TileList::runs);

  Result<PlannerLayout> layout(const Problem& problem, const plan::TileShape& shape) const {
    return planner_layout(source_, problem, shape);
  }
  // In the planner's context, which must be current. `tiles` is from planned_words().
  Result<void> enqueue(const Problem& problem, const PlannerLayout& layout, cuda::DevicePointer memory,
                       const cuda::TileWords& tiles, cuda::StreamHandle stream) const;

  const emit::PlannerSource& source() const { return source_; }

 private:
  DevicePlanner(const ir::Module& module, emit::KernelOptions options, emit::PlannerSource source,
                cuda::LoadedKernel rows)
      : module_(module), options_(std::move(options)), source_(std::move(source)), rows_(std::move(rows)) {}

  ir::Module module_;  // the variant's
  emit::KernelOptions options_;
  emit::PlannerSource source_;
  cuda::LoadedKernel rows_;
  std::optional<cuda::LoadedKernel> tables_;
};

}  // namespace vicinal::runtime
