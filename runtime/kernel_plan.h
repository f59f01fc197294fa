// What Kernel::prepare() makes and a launch takes: the tile shape for a problem's extents and, where a mask
// has its say, the list of tiles, on the host and on the device.
#pragma once

#include <vicinal/vicinal.h>

#include <functional>
#include <map>
#include <mutex>

#include "runtime/backward_plan.h"
#include "runtime/cuda/context.h"
#include "runtime/cuda/device_memory.h"
#include "runtime/device_planner.h"
#include "runtime/plan/tile_cost.h"

namespace vicinal {

namespace runtime {
struct Program;
}

struct Plan::Impl {
  const void* kernel = nullptr;               // the Kernel::Impl that made it; never looked into
  const runtime::Program* program = nullptr;  // of that kernel, whose tiles these are; null on the host
  // Everything of a problem but its tensors: two problems with the same key have the same tiles.
  std::vector<std::int64_t> key;
  runtime::Problem problem;  // that the plan speaks of; its tensors may be gone
  plan::TileShape shape;
  bool depends_on_data = false;
  std::size_t bytes = 0;                         // of the list
  std::optional<plan::TilePlan> tiles;           // made on the host
  std::optional<runtime::PlannerLayout> layout;  // or of what the device made
  // On a device: what a launch takes, and the memory that it points to, freed in its own context.
  cuda::TileWords words;
  std::optional<cuda::Context> context;
  cuda::DeviceBuffer row_runs, runs, workspace;
  std::optional<runtime::BackwardPlan> backward;  // of a kernel compiled with gradients, if it has lists

  Impl() = default;
  ~Impl();
};

namespace runtime {

std::vector<std::int64_t> plan_key(const ir::Module& module, const Problem& problem);

// The cheapest shape with so many queries and keys, and the cheapest of those that a kernel can have; nothing
// where it can have none.
plan::TileShape choose_shape(const Problem& problem, std::int64_t queries, std::int64_t keys);
std::optional<plan::TileShape> find_shape(const Problem& problem, std::int64_t queries, std::int64_t keys,
                                          const plan::ShapeRules& rules);

// The list of a plan goes to the device, where it has one.
Result<void> upload(Plan::Impl& plan, const cuda::Context& context);

// The runs of every slice and row, wherever the list is. Waits for the stream where that is a device.
Result<std::vector<std::vector<plan::Run>>> list_rows(const Plan::Impl& plan, cuda::StreamHandle stream);

// Copies of the inputs that are named, in host memory, in place of those on the device. Waits for the
// stream where there are any.
struct HostInputs {
  std::vector<std::vector<std::byte>> bytes;  // by input
};
Result<HostInputs> download_inputs(const cuda::Context& context, cuda::StreamHandle stream,
                                   const std::vector<bool>& wanted, Problem& problem);

// Shapes of one kernel's tiles, by extents: a search may take longer than a launch. All are forgotten when
// there are many.
class ShapeCache {
 public:
  using Search = std::function<std::optional<plan::TileShape>()>;
  std::optional<plan::TileShape> find(const ir::Module& module, const Problem& problem, const Search& search);

 private:
  std::mutex lock_;
  std::map<std::vector<std::int64_t>, std::optional<plan::TileShape>> shapes_;
};

// Shapes and plans of one kernel, likewise.
class PlanCache {
 public:
  plan::TileShape shape(const ir::Module& module, const Problem& problem, std::int64_t queries,
                        std::int64_t keys) {
    return *find_shape(module, problem, queries, keys, {});
  }
  std::optional<plan::TileShape> find_shape(const ir::Module& module, const Problem& problem,
                                            std::int64_t queries, std::int64_t keys,
                                            const plan::ShapeRules& rules);
  std::shared_ptr<const Plan::Impl> find(const std::vector<std::int64_t>& key) const;
  void add(std::shared_ptr<const Plan::Impl> plan);

 private:
  ShapeCache shapes_;
  mutable std::mutex lock_;
  std::map<std::vector<std::int64_t>, std::shared_ptr<const Plan::Impl>> plans_;
};

}  // namespace runtime
}  // namespace vicinal
