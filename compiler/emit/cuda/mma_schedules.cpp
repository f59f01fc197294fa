#include "compiler/emit/cuda/mma_schedules.h"

#include <fmt/format.h>

#include <algorithm>

namespace vicinal::emit {
namespace {

// Warps with 32 rows read an operand from shared memory half as often as those with 16, and hold twice the
// output: value_dim registers of a thread.
constexpr MmaSchedule kSchedules[] = {
    // dim, bytes, queries, keys, chunk, warps, blocks, held
    {64, 2, 128, 128, 64, 4, 2, true},  {64, 2, 128, 64, 64, 4, 2, true},  {128, 2, 128, 64, 32, 4, 2, false},
    {128, 2, 128, 32, 32, 4, 2, false}, {256, 2, 64, 32, 32, 4, 1, false}, {256, 2, 64, 16, 16, 4, 2, false},
    {64, 4, 128, 32, 16, 4, 2, false},  {128, 4, 64, 32, 32, 4, 2, false}, {128, 4, 64, 16, 16, 4, 2, false},
    {256, 4, 64, 16, 16, 4, 1, false},  {256, 4, 32, 16, 16, 2, 1, false},
};

}  // namespace

int MmaSchedule::shared_bytes(int head_dim, int value_dim) const {
  // As templates/vicinal/mma/products.cuh has the strides of rows.
  const auto whole = [](int channels) { return (channels + 15) / 16 * 16; };
  const int head = whole(head_dim), value = whole(value_dim);
  const int key_stride = element_bytes == 2 ? head + 8 : head % 32 == 16 ? head : head + 16;
  const int value_stride = element_bytes == 2 ? value + 8 : value + 4;
  const int operands = element_bytes * (tile_q * key_stride + 2 * tile_k * (key_stride + value_stride));
  const int output = 4 * 16 * warps * (value + 4);
  return std::max(operands, output);
}

std::vector<MmaSchedule> mma_schedules(const MmaNeeds& needs) {
  const int dim = std::max(needs.head_dim, needs.value_dim);
  int meant_for = 0;
  std::vector<MmaSchedule> result;
  for (MmaSchedule schedule : kSchedules) {
    if (schedule.element_bytes != needs.element_bytes || schedule.dim < dim) continue;
    if (meant_for == 0) meant_for = schedule.dim;
    if (schedule.dim != meant_for) continue;
    // What is computed for each element takes registers, and time to compile.
    if (needs.computes) schedule.chunk = std::min(schedule.chunk, 32);
    result.push_back(schedule);
  }
  return result;
}

std::vector<MmaSchedule> mma_variations(const MmaNeeds& needs) {
  const std::vector<MmaSchedule> base = mma_schedules(needs);
  std::vector<MmaSchedule> result = base;
  const auto add = [&](const MmaSchedule& schedule) {
    if (std::ranges::find(result, schedule) == result.end()) result.push_back(schedule);
  };
  for (const MmaSchedule& schedule : base) {
    MmaSchedule other = schedule;
    for (other.chunk = 16; other.chunk <= std::min(64, other.tile_k); other.chunk *= 2) add(other);
    other = schedule;
    other.holds_queries = !other.holds_queries;
    add(other);
    other = schedule;
    for (other.blocks = 1; other.blocks <= 3; ++other.blocks) add(other);
  }
  return result;
}

std::string print(const MmaSchedule& s) {
  return fmt::format("{}x{} in chunks of {}, {} warps, {} block{}{}", s.tile_q, s.tile_k, s.chunk, s.warps,
                     s.blocks, s.blocks == 1 ? "" : "s", s.holds_queries ? ", queries held" : "");
}

}  // namespace vicinal::emit
