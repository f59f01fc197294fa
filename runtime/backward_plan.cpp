#include "runtime/backward_plan.h"

#include <span>

namespace vicinal::runtime {

BackwardTiles backward_tiles(const Problem& problem, const plan::TileShape& shape) {
  return {tile_words(problem, shape), tile_words(problem, shape)};
}

std::size_t BackwardPlan::bytes() const {
  return queries.bytes() + keys.bytes();
}

Result<std::optional<BackwardPlan>> plan_backward(const plan::Masks& masks, const Problem& problem,
                                                  const plan::TileShape& shape, unsigned threads) {
  const auto made = [&](plan::Side owner) {
    return plan::plan_tiles(masks, problem, shape, {.owner = owner, .threads = threads});
  };
  VICINAL_TRY(plan::TilePlan queries, made(plan::Side::queries));
  if (!queries.listed()) return std::optional<BackwardPlan>();
  VICINAL_TRY(plan::TilePlan keys, made(plan::Side::keys));
  return std::optional(BackwardPlan{std::move(queries), std::move(keys), backward_tiles(problem, shape), {}});
}

void place_lists(BackwardPlan& plan, const Problem& problem, const plan::TileShape& shape,
                 const ListAddresses& queries, const ListAddresses& keys) {
  plan.tiles.queries = tile_words(problem, shape, plan.queries.slices(), queries.row_runs, queries.runs);
  if (plan.keys.listed())
    plan.tiles.keys = tile_words(problem, shape, plan.keys.slices(), keys.row_runs, keys.runs);
}

Result<void> upload_lists(BackwardPlan& plan, const Problem& problem, const plan::TileShape& shape,
                          const cuda::Context& context) {
  ListAddresses addresses[2];
  const plan::TilePlan* const plans[2] = {&plan.queries, &plan.keys};
  for (std::size_t i = 0; i < 2; ++i) {
    const std::vector<RowRuns> rows = row_runs(*plans[i]);
    cuda::DeviceBuffer* const memory = plan.memory + 2 * i;
    VICINAL_TRY(memory[0], cuda::DeviceBuffer::copy_of(context.api(), std::as_bytes(std::span(rows))));
    VICINAL_TRY(memory[1],
                cuda::DeviceBuffer::copy_of(context.api(), std::as_bytes(std::span(plans[i]->runs()))));
    addresses[i] = {memory[0].address(), memory[1].address()};
  }
  place_lists(plan, problem, shape, addresses[0], addresses[1]);
  return {};
}

}  // namespace vicinal::runtime
