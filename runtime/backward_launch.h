// What the kernels of backward and of forward mode are launched with: the memory that the first work in, and
// their arguments.
#pragma once

#include "compiler/emit/cuda/backward_source.h"
#include "runtime/backward_plan.h"
#include "runtime/binding/differentials.h"
#include "runtime/cuda_kernel.h"

namespace vicinal::runtime {

std::int64_t elements_of(const Problem& problem, const emit::CapturedSlot& slot);

// Parts of a workspace, as offsets from its beginning.
struct BackwardLayout {
  std::size_t row_terms = 0;        // f32, a row
  std::size_t d_rows = 0, out = 0;  // with an output expression: gradients and outputs before it
  std::size_t partial_sums = 0;     // f32, [block][element]
  std::size_t bytes = 0;
  std::int64_t blocks = 1, elements = 0;     // of captured gradients that are summed in lists
  std::vector<std::int64_t> begins, counts;  // by slot
};
Result<BackwardLayout> backward_layout(const Problem& problem,
                                       const std::vector<emit::CapturedSlot>& captured, bool has_output,
                                       DType dtype);

// The problem of a run that leaves its output, before the output expression, in the workspace.
Problem problem_before_output(const Problem& problem, const BackwardLayout& layout, std::uint64_t workspace);

struct BackwardProblem {
  const Problem& problem;
  const plan::TileShape& shape;  // tiles of emit::kBackwardTile
  const BackwardTiles& tiles;
  const BoundOutputDifferentials& outputs;  // backward is given these, and forward mode makes them
  const BoundDifferentials& inputs;         // the other way round
  const BackwardLayout& layout;
  std::uint64_t workspace;  // its address; forward mode needs none
  bool has_output;
  std::string_view noun = "gradient";  // or "tangent", for errors
  // Where not 0, the address of a word: queries and keys are computed only if it is not 0.
  std::uint64_t only_if = 0;
};
// Errors (spec): tensors that the kernels do not take.
Result<void> check_backward(const BackwardProblem& of, const std::vector<emit::CapturedSlot>& captured,
                            DType dtype);
// Nothing where the step has nothing to do.
Result<std::optional<Launch>> prepare_backward(const BackwardProblem& of, const emit::BackwardSource& source,
                                               emit::BackwardStep step, const emit::KernelOptions& options,
                                               const ir::Module& module);

}  // namespace vicinal::runtime
