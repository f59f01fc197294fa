// What Kernel::prepare() makes and a launch takes: the tile shape for a problem's extents and, where a mask
// has its say, the list of tiles, on the host and on the device.
#pragma once

#include <vicinal/vicinal.h>

#include <map>
#include <mutex>

#include "runtime/cuda/arguments_writer.h"
#include "runtime/cuda/context.h"
#include "runtime/cuda/device_memory.h"
#include "runtime/plan/tile_cost.h"

namespace vicinal {

struct Plan::Impl {
  const void* kernel = nullptr;  // the Kernel::Impl that made it; never looked into
  // Everything of a problem but its tensors: two problems with the same key have the same tiles.
  std::vector<std::int64_t> key;
  runtime::Problem problem;             // that `tiles` speaks of; its tensors may be gone
  std::optional<plan::TilePlan> tiles;  // always there

  // The list in device memory; freed in its own context.
  std::optional<cuda::Context> context;
  cuda::DeviceBuffer row_starts, runs;

  Impl() = default;
  ~Impl();
};

namespace runtime {

std::vector<std::int64_t> plan_key(const ir::Module& module, const Problem& problem);

// The cheapest shape with so many queries and keys.
plan::TileShape choose_shape(const Problem& problem, std::int64_t queries, std::int64_t keys);

// The list of a plan goes to the device.
Result<void> upload(Plan::Impl& plan, const cuda::Context& context);

// Copies of the inputs that are named, in host memory, in place of those on the device. Waits for the stream.
struct HostInputs {
  std::vector<std::vector<std::byte>> bytes;  // by input
};
Result<HostInputs> download_inputs(const cuda::Context& context, cuda::StreamHandle stream,
                                   const std::vector<bool>& wanted, Problem& problem);

// How a kernel walks the tiles of a shape; with the list of a plan, where there is one.
cuda::TileWords tile_words(const Problem& problem, const plan::TileShape& shape, const Plan::Impl* plan);

// Shapes and plans of one kernel, by extents. The oldest go when there are many.
class PlanCache {
 public:
  plan::TileShape shape(const ir::Module& module, const Problem& problem, std::int64_t queries,
                        std::int64_t keys);
  std::shared_ptr<const Plan::Impl> find(const std::vector<std::int64_t>& key) const;
  void add(std::shared_ptr<const Plan::Impl> plan);

 private:
  static constexpr std::size_t kMost = 64;
  mutable std::mutex lock_;
  std::map<std::vector<std::int64_t>, plan::TileShape> shapes_;
  std::map<std::vector<std::int64_t>, std::shared_ptr<const Plan::Impl>> plans_;
};

}  // namespace runtime
}  // namespace vicinal
