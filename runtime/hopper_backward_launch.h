// What the Hopper kernels of the backward pass are launched with: their memory, tensor maps and arguments
// (templates/vicinal/hopper/backward/contract.cuh).
#pragma once

#include "compiler/emit/cuda/hopper_backward_source.h"
#include "runtime/backward_launch.h"
#include "runtime/planner_launch.h"

namespace vicinal::runtime {

// Why the copy engine cannot take the tensors; nothing where it can.
std::optional<std::string> hopper_backward_obstacle(const BackwardProblem& of);

// The boxes that both sides are cut into: those between which windows leave the least to compute.
// Nothing where dilations let the copy engine bring none at a time.
std::optional<plan::TileShape> hopper_backward_shape(const Problem& problem,
                                                     const emit::HopperBackwardSchedule& schedule);

// Parts of a workspace, as offsets from its beginning, of which the first `cleared` bytes are 0 before a
// launch.
struct HopperBackwardLayout {
  std::size_t poisoned = 0;  // u32
  std::size_t drawn = 0;     // u32, two
  std::size_t finished = 0;  // u32, a batch and head of keys
  std::size_t turns = 0;     // u32, a tile of queries
  std::size_t cleared = 0;
  std::size_t query_sums = 0;  // f32
  std::size_t query_rows = 0;  // QueryRows, a tile of queries
  std::size_t reaches = 0;     // TileReach, a tile of queries; none where there is a planner
  std::size_t pairs = 0;       // what a planner writes
  std::optional<PlannerLayout> plan;
  std::size_t bytes = 0;
};
// `planner`: of bits of pairs, where the schedule asks for one.
Result<HopperBackwardLayout> hopper_backward_layout(const Problem& problem, const plan::TileShape& shape,
                                                    const emit::HopperBackwardSchedule& schedule,
                                                    const emit::PlannerSource* planner);

struct HopperBackwardLaunch {
  const plan::TileShape& shape;
  const HopperBackwardLayout& layout;
  std::uint64_t workspace;  // its address
  bool in_turn;             // tiles of keys add in one order, so that the same arguments give the same bits

  cuda::TileWords tiles(const Problem& problem) const {
    return layout.plan ? planned_words(*layout.plan, workspace + layout.pairs, problem, shape)
                       : tile_words(problem, shape);
  }
};
// `source`: of the step. The blocks are as many as there is work for.
Result<Launch> prepare_hopper_backward(const cuda::DriverApi& api, const BackwardProblem& of,
                                       const HopperBackwardLaunch& launch, const emit::KernelSource& source,
                                       emit::HopperBackwardStep step, const emit::KernelOptions& options,
                                       const ir::Module& module);

}  // namespace vicinal::runtime
