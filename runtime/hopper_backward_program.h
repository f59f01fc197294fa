// The Hopper kernels of the backward pass on a device, in place of the portable ones for queries and keys.
#pragma once

#include <memory>

#include "runtime/cuda/context.h"
#include "runtime/cuda/loaded_kernel.h"
#include "runtime/device_planner.h"
#include "runtime/hopper_backward_launch.h"
#include "runtime/kernel_plan.h"

namespace vicinal::runtime {

class HopperBackwardProgram {
 public:
  // Or why there is none for the variant, the dims or the device.
  struct Made {
    std::shared_ptr<const HopperBackwardProgram> program;
    std::string why;
  };
  static Result<Made> make(Engine& engine, const cuda::Context& context,
                           const emit::Specialized& differentiated, const emit::KernelOptions& options,
                           const std::string& arch);

  // `module`: the kernel's declarations.
  std::optional<plan::TileShape> shape(const ir::Module& module, const Problem& problem) const {
    return shapes_.find(module, problem, [&] { return hopper_backward_shape(problem, schedule_); });
  }
  Result<HopperBackwardLayout> layout(const Problem& problem, const plan::TileShape& shape) const {
    return hopper_backward_layout(problem, shape, schedule_, planner_ ? &planner_->source() : nullptr);
  }
  // Computes the rows' terms too. Clears its memory, and leaves in `poisoned` whether the portable kernels
  // have to compute the same gradients again. Of kernels that are a few waves on the device.
  unsigned most_blocks() const { return static_cast<unsigned>(4 * multiprocessors_); }
  Result<void> launch(const BackwardProblem& of, const HopperBackwardLaunch& how, const ir::Module& module,
                      cuda::StreamHandle stream) const;

 private:
  struct Step {
    emit::KernelSource source;
    cuda::LoadedKernel loaded;
  };

  emit::KernelOptions options_;
  emit::HopperBackwardSchedule schedule_;
  std::vector<Step> steps_;
  std::optional<DevicePlanner> planner_;  // where the schedule asks for one
  int multiprocessors_ = 1;
  mutable ShapeCache shapes_;
};

}  // namespace vicinal::runtime
