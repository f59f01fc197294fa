// How the Hopper kernel is cut for a problem: tiles, stages, registers. One table; the rows that fit are
// candidates in the order in which they should be tried.
#pragma once

#include <string>
#include <vector>

namespace vicinal::emit {

// templates/vicinal/hopper/ reads these as constants of a struct.
struct HopperSchedule {
  int head_dim = 0;  // the largest of head and value dim that it is meant for
  int tile_q = 0, tile_k = 0;
  int stages = 0;  // of keys and of values
  int producer_registers = 0, consumer_registers = 0;
  bool ping_pong = false;      // consumers take turns at issuing products
  bool early_rescale = false;  // of the output: between two products rather than after them
  int blocks = 1;              // that share a multiprocessor
  bool skips = false;          // each group of 64 queries leaves out tiles of which it keeps nothing
  bool output_apart = false;   // not staged where the queries are, which the next ones then need not wait for

  int groups() const { return tile_q / 64; }
  int threads() const { return (groups() + 1) * 128; }
  // Dynamic shared memory, with the slack for its alignment. `column_bytes`: staged beside each key.
  int shared_bytes(int head_dim, int value_dim, int rank, int column_bytes) const;

  friend bool operator==(const HopperSchedule&, const HopperSchedule&) = default;
};

// What a block of sm_90 can have.
inline constexpr int kHopperSharedBytes = 232448;

struct HopperNeeds {
  int head_dim = 128, value_dim = 128;
  bool computes = false;  // scores are more than a scaled dot product
  bool asks = false;      // there is a mask beside limits
  bool limited = false;   // keys end on a side of a query, by limits
  bool windowed = false;  // on both sides
  int rank = 1;           // axes of the grid
  bool strided = false;   // neighbouring queries share windows
  bool causal = false;    // along some axis
  bool dilated = false;   // along some axis
  int window_keys = 0;    // that a query sees in its windows; 0 where that is not known or not limited
  int column_bytes = 0;
};
std::vector<HopperSchedule> hopper_schedules(const HopperNeeds& needs);
// The same, and then each with another number of stages, with the rescaling moved, or without turns: what a
// measurement chooses from.
std::vector<HopperSchedule> hopper_variations(const HopperNeeds& needs);

// "192x80, 2 stages, 32/160 registers, ping-pong"
std::string print(const HopperSchedule& schedule);

}  // namespace vicinal::emit
