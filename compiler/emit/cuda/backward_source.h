// A variant's gradients as CUDA source: its expressions and their derivatives, and one of the kernels of
// templates/vicinal/kernels/backward.cuh over them; or, in forward mode, that of tangents.cuh.
#pragma once

#include "compiler/emit/cuda/kernel_source.h"
#include "compiler/emit/cuda/site_members.h"

namespace vicinal::emit {

enum class BackwardStep { rows, queries, keys, captured, sums, tangents };
// In their order; forward mode's is none of them.
inline constexpr BackwardStep kBackwardSteps[] = {BackwardStep::rows, BackwardStep::queries,
                                                  BackwardStep::keys, BackwardStep::captured,
                                                  BackwardStep::sums};
std::string_view name_of(BackwardStep step);

// Of tiles of queries and of keys.
inline constexpr int kBackwardTile = 32;

struct BackwardSource {
  KernelSource kernel;
  std::vector<CapturedSlot> captured;  // in the order of BackwardArguments::captured
};

// `differentiated`: specialize() of a module with its partials.
BackwardSource emit_backward(const Specialized& differentiated, const KernelOptions& options,
                             BackwardStep step);

}  // namespace vicinal::emit
