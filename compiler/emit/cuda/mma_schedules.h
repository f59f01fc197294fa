// How the tensor-core kernel (templates/vicinal/kernels/mma.cuh) is cut for a problem. One table; the rows
// that fit are candidates in the order in which they should be tried.
#pragma once

#include <string>
#include <vector>

namespace vicinal::emit {

// templates/vicinal/kernels/mma.cuh reads these as constants of a struct.
struct MmaSchedule {
  int dim = 0;            // the largest of head and value dim that it is meant for
  int element_bytes = 0;  // of Q, K and V
  int tile_q = 0, tile_k = 0;
  int chunk = 0;               // keys whose scores a warp holds at a time
  int warps = 0, blocks = 0;   // of a block, of a multiprocessor
  bool holds_queries = false;  // in registers

  int threads() const { return 32 * warps; }
  int shared_bytes(int head_dim, int value_dim) const;  // dynamic

  friend bool operator==(const MmaSchedule&, const MmaSchedule&) = default;
};

struct MmaNeeds {
  int head_dim = 128, value_dim = 128, element_bytes = 2;
  bool computes = false;  // scores are more than a scaled dot product
};
std::vector<MmaSchedule> mma_schedules(const MmaNeeds& needs);
// The same, and then each with other chunks, the queries held or not, or another number of blocks: what a
// measurement chooses from.
std::vector<MmaSchedule> mma_variations(const MmaNeeds& needs);

// "128x64 in chunks of 32, 4 warps, 2 blocks, queries held"
std::string print(const MmaSchedule& schedule);

}  // namespace vicinal::emit
