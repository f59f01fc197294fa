#include "compiler/emit/cuda/hopper_schedules.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

namespace vicinal::emit {
namespace {

// A consumer thread holds tile_k / 2 scores, tile_k / 4 weights and value_dim / 2 outputs, and needs some 30
// registers beside them. Rows for a dim stand from the fastest to the one that surely fits.
constexpr HopperSchedule kSchedules[] = {
    // dim, queries, keys, stages, registers, ping-pong, early rescale, blocks
    {64, 192, 128, 2, 32, 160, true, true},   {64, 192, 96, 2, 32, 160, true, true},
    {64, 128, 128, 2, 40, 232, true, true},   {96, 192, 96, 2, 32, 160, true, false},
    {96, 192, 80, 2, 32, 160, true, false},   {96, 128, 128, 2, 40, 232, true, false},
    {128, 192, 80, 2, 32, 160, true, false},  {128, 128, 128, 2, 40, 232, true, true},
    {128, 128, 96, 2, 40, 232, true, false},  {192, 128, 112, 2, 40, 232, true, true},
    {192, 128, 80, 2, 40, 232, true, true},   {256, 128, 80, 2, 40, 232, false, false},
    {256, 128, 64, 2, 40, 232, false, false}, {256, 128, 48, 2, 40, 232, false, false},
};

// Of barriers, notes and work, with and without what an axis adds, and of a query's range along an axis
// (templates/vicinal/ asserts that it is enough).
constexpr int kControlBytes = 384, kAxisControlBytes = 128, kLimitBytes = 8, kAlignment = 1024;

int slab_bytes(int rows, int channels) {
  return (channels + 63) / 64 * 128 * rows;
}

// For windows of three axes: smaller boxes of keys fit them better, and the groups' boxes lie one behind the
// other along the slowest.
constexpr HopperSchedule kVolumeSchedules[] = {
    {128, 192, 64, 4, 32, 160, false, true, 1, true},
};
// Where windows have few keys, blocks hide each other's beginnings and ends.
constexpr HopperSchedule kSmallWindowSchedules[] = {
    {64, 64, 128, 2, 40, 208, false, true, 2},
};
constexpr int kSmallWindow = 512;  // keys

}  // namespace

int HopperSchedule::shared_bytes(int head, int value, int rank, int column_bytes) const {
  return kAlignment + kControlBytes + rank * (kAxisControlBytes + kLimitBytes * tile_q) +
         (output_apart ? slab_bytes(tile_q, head) + slab_bytes(tile_q, value)
                       : std::max(slab_bytes(tile_q, head), slab_bytes(tile_q, value))) +
         stages * (slab_bytes(tile_k, head) + slab_bytes(tile_k, value)) + 2 * stages * tile_k * column_bytes;
}

namespace {

bool fits(const HopperSchedule& schedule, const HopperNeeds& needs) {
  // The system takes a kilobyte of each block's.
  constexpr int kReserved = 1024;
  return schedule.shared_bytes(needs.head_dim, needs.value_dim, needs.rank, needs.column_bytes) <=
         (kHopperSharedBytes + kReserved) / schedule.blocks - kReserved;
}

}  // namespace

std::vector<HopperSchedule> hopper_schedules(const HopperNeeds& needs) {
  const int dim = std::max(needs.head_dim, needs.value_dim);
  int meant_for = 0;
  std::vector<HopperSchedule> result;
  for (HopperSchedule schedule : kSchedules) {
    if (schedule.head_dim < dim || (meant_for != 0 && schedule.head_dim != meant_for)) continue;
    meant_for = schedule.head_dim;
    if (!fits(schedule, needs)) continue;
    // Work on scores hides the rescaling best where the tensor cores are busy with the next ones.
    schedule.early_rescale = schedule.early_rescale || needs.computes;
    result.push_back(schedule);
  }
  // A window's tiles are partial on both sides, and others that are asked for pairs often; the fewer the
  // smaller the tile of queries. And what is computed for each element takes registers, of which two groups
  // have more than three.
  // Of those sizes 128x128 is also the better one for a triangle, by the fewer tiles on its diagonal.
  const bool triangle = needs.limited && meant_for == 128;
  if (needs.windowed || needs.asks || needs.computes || triangle)
    std::ranges::stable_partition(result, [](const HopperSchedule& s) { return s.tile_q == 128; });
  if (needs.rank > 1 && needs.windowed) {
    std::vector<HopperSchedule> first;
    const auto add = [&](std::span<const HopperSchedule> rows) {
      for (const HopperSchedule& schedule : rows)
        if (schedule.head_dim == meant_for && fits(schedule, needs)) first.push_back(schedule);
    };
    if (needs.window_keys != 0 && needs.window_keys <= kSmallWindow) add(kSmallWindowSchedules);
    const bool plain = !needs.strided && !needs.causal && !needs.dilated && !needs.computes;
    if (needs.rank == 3 && plain) add(kVolumeSchedules);
    result.insert(result.begin(), first.begin(), first.end());
  }
  for (HopperSchedule& schedule : result) {
    schedule.output_apart = true;
    schedule.output_apart = fits(schedule, needs);
  }
  return result;
}

std::vector<HopperSchedule> hopper_variations(const HopperNeeds& needs) {
  const std::vector<HopperSchedule> base = hopper_schedules(needs);
  std::vector<HopperSchedule> result = base;
  const auto add = [&](const HopperSchedule& schedule) {
    if (fits(schedule, needs) && std::ranges::find(result, schedule) == result.end())
      result.push_back(schedule);
  };
  for (const HopperSchedule& schedule : base) {
    HopperSchedule other = schedule;
    for (other.stages = 3; other.stages <= 4; ++other.stages) add(other);
    other = schedule;
    other.early_rescale = !other.early_rescale;
    add(other);
    other = schedule;
    other.ping_pong = !other.ping_pong;
    add(other);
    other = schedule;
    other.output_apart = !other.output_apart;
    add(other);
    other = schedule;
    other.skips = !other.skips;
    if (needs.rank > 1 && needs.limited) add(other);
  }
  return result;
}

std::string print(const HopperSchedule& s) {
  return fmt::format("{}x{}, {} stages, {}/{} registers{}{}{}{}{}", s.tile_q, s.tile_k, s.stages,
                     s.producer_registers, s.consumer_registers, s.ping_pong ? ", ping-pong" : "",
                     s.early_rescale ? ", early rescale" : "",
                     s.blocks == 1 ? "" : fmt::format(", {} blocks", s.blocks), s.skips ? ", skips" : "",
                     s.output_apart ? ", output apart" : "");
}

}  // namespace vicinal::emit
