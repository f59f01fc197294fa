// The kernels that compute a variant's gradients on a device, one after the other on a stream; and the one of
// forward mode.
#pragma once

#include <array>

#include "compiler/driver/compile.h"
#include "runtime/backward_launch.h"
#include "runtime/program.h"

namespace vicinal::runtime {

class BackwardProgram {
 public:
  static Result<std::shared_ptr<const BackwardProgram>> make(Engine& engine, const cuda::Context& context,
                                                             const driver::Variant& variant,
                                                             const emit::KernelOptions& options,
                                                             const std::string& arch);

  Result<BackwardLayout> layout(const Problem& problem) const;
  plan::TileShape shape(const Problem& problem) const;
  // Everything of the problem is checked, and there is a workspace of as many bytes as the layout says. A
  // plan is one of shape(problem), or null.
  Result<void> launch(const Problem& problem, const BackwardPlan* plan, const BoundOutputDifferentials& given,
                      const BoundDifferentials& wanted, std::uint64_t workspace,
                      cuda::StreamHandle stream) const;
  // Forward mode, likewise.
  Result<void> launch_tangents(const Problem& problem, const BackwardPlan* plan,
                               const BoundDifferentials& given, const BoundOutputDifferentials& wanted,
                               cuda::StreamHandle stream) const;

 private:
  struct Step {
    emit::BackwardSource source;
    cuda::LoadedKernel loaded;
  };
  bool has_output() const { return before_output_ != nullptr; }
  Result<void> clear(const Problem& problem, const BoundDifferentials& wanted,
                     cuda::StreamHandle stream) const;

  emit::KernelOptions options_;
  ir::Module module_;  // its declarations
  std::vector<Step> steps_;
  std::optional<Step> tangents_;
  std::shared_ptr<const Program> before_output_;  // where there is an output expression: the run without it
  mutable PlanCache shapes_;
};

}  // namespace vicinal::runtime
