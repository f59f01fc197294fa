// A variant's gradients as CUDA source: its expressions and their derivatives, and one of the kernels of
// templates/vicinal/kernels/backward.cuh over them.
#pragma once

#include "compiler/emit/cuda/kernel_source.h"

namespace vicinal::emit {

enum class BackwardStep { rows, queries, keys, captured, sums };
inline constexpr BackwardStep kBackwardSteps[] = {BackwardStep::rows, BackwardStep::queries,
                                                  BackwardStep::keys, BackwardStep::captured,
                                                  BackwardStep::sums};
std::string_view name_of(BackwardStep step);

// Of tiles of queries and of keys.
inline constexpr int kBackwardTile = 32;

// Something learnable that some derivative is taken of: an input or a param, by its number.
struct CapturedSlot {
  bool param;
  std::uint32_t index;
};

struct BackwardSource {
  KernelSource kernel;
  std::vector<CapturedSlot> captured;  // in the order of BackwardArguments::captured
};

// Why the kernels cannot compute the variant's gradients; nothing where they can.
std::optional<std::string> backward_obstacle(const Specialized& differentiated);

// `differentiated`: specialize() of a module with its partials.
BackwardSource emit_backward(const Specialized& differentiated, const KernelOptions& options,
                             BackwardStep step);

}  // namespace vicinal::emit
