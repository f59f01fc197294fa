// The kernels that compute a variant's gradients on a device, one after the other on a stream; and the one of
// forward mode.
#pragma once

#include <array>

#include "compiler/driver/compile.h"
#include "runtime/backward_launch.h"
#include "runtime/hopper_backward_program.h"
#include "runtime/program.h"

namespace vicinal::runtime {

class BackwardProgram {
 public:
  static Result<std::shared_ptr<const BackwardProgram>> make(Engine& engine, const cuda::Context& context,
                                                             const driver::Variant& variant,
                                                             const emit::KernelOptions& options,
                                                             const std::string& arch, bool deterministic);

  // "cuda/hopper" or "cuda/portable": what computes the gradients of queries, keys and values; and why it is
  // not a faster one.
  struct Path {
    std::string name, reason;
  };
  Path path() const { return {hopper_ ? "cuda/hopper" : "cuda/portable", path_reason_}; }
  // The same for a problem's extents. Its tensors may still be some that the copy engine cannot take.
  Path path(const Problem& problem) const;

  plan::TileShape shape(const Problem& problem) const;
  // Bytes of the workspace.
  Result<std::size_t> workspace_bytes(const Problem& problem) const;
  // Everything of the problem is checked, and there is a workspace of that many bytes. A plan is one of
  // shape(problem), or null.
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
  Result<BackwardLayout> layout(const Problem& problem) const;
  Result<void> clear(const Problem& problem, const BoundDifferentials& wanted,
                     cuda::StreamHandle stream) const;

  emit::KernelOptions options_;
  ir::Module module_;  // its declarations
  std::vector<Step> steps_;
  std::shared_ptr<const HopperBackwardProgram> hopper_;
  std::string path_reason_;
  bool deterministic_ = true;
  std::optional<Step> tangents_;
  std::shared_ptr<const Program> before_output_;  // where there is an output expression: the run without it
  mutable PlanCache shapes_;
};

}  // namespace vicinal::runtime
