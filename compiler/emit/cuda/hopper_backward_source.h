// A variant's gradients of queries, keys and values on Hopper's tensor cores, as CUDA source over
// templates/vicinal/kernels/hopper_backward.cuh. The other gradients are the kernels' of backward_source.h,
// of which `rows` goes before these.
#pragma once

#include "compiler/emit/cuda/kernel_source.h"

namespace vicinal::emit {

struct HopperBackwardSchedule {
  int tile_q = 0;
  int producer_registers = 0, consumer_registers = 0;
  int row_bytes = 0;     // of a query's part of QueryRows
  int seen_bytes = 0;    // of the queries that windows let see a key, in shared memory
  bool planned = false;  // which tiles meet is for emit_planner()'s `pairs` to say

  // Dynamic shared memory, with the slack for its alignment.
  int shared_bytes(int head_dim, int value_dim) const;
  // Floats of a tile's sums (QuerySums), and bytes of its QueryRows.
  int sums_of_tile(int head_dim) const { return tile_q * head_dim; }
  int row_bytes_of_tile() const { return (tile_q * row_bytes + 15) / 16 * 16; }
};

// Of its keys; templates/vicinal/hopper/backward/contract.cuh has it as kTileK.
inline constexpr int kHopperBackwardTileK = 128;

// How the kernel is cut for these dims, and why it does not run the variant where it does not.
struct HopperBackwardChoice {
  std::optional<HopperBackwardSchedule> schedule;
  std::string why;
};
HopperBackwardChoice choose_hopper_backward(const Specialized& differentiated, const KernelOptions& options);

enum class HopperBackwardStep { rows, keys, queries };
inline constexpr HopperBackwardStep kHopperBackwardSteps[] = {
    HopperBackwardStep::rows, HopperBackwardStep::keys, HopperBackwardStep::queries};
std::string_view name_of(HopperBackwardStep step);

// `differentiated`: specialize() of a module with its partials.
KernelSource emit_hopper_backward(const Specialized& differentiated, const KernelOptions& options,
                                  const HopperBackwardSchedule& schedule, HopperBackwardStep step);

}  // namespace vicinal::emit
