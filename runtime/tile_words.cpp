#include "runtime/tile_words.h"

namespace vicinal::runtime {

cuda::TileWords tile_words(const Problem& problem, const plan::TileShape& shape) {
  cuda::TileWords words;
  words.q.assign(shape.q.begin(), shape.q.end());
  words.k.assign(shape.k.begin(), shape.k.end());
  words.rows = plan::TileGrid(problem, shape).rows();
  return words;
}

plan::TileShape shape_of(const cuda::TileWords& words) {
  return {{words.q.begin(), words.q.end()}, {words.k.begin(), words.k.end()}};
}

cuda::TileWords tile_words(const Problem& problem, const plan::TileShape& shape, const plan::Slices& slices,
                           cuda::DevicePointer row_runs, cuda::DevicePointer runs) {
  cuda::TileWords words = tile_words(problem, shape);
  words.row_runs = row_runs;
  words.runs = runs;
  words.slice_batch = slices.batches == 1 ? 0 : slices.heads;
  words.slice_head = slices.heads == 1 ? 0 : 1;
  words.heads_per_slice = slices.heads_per_slice;
  return words;
}

std::vector<RowRuns> row_runs(const plan::TilePlan& plan) {
  std::vector<RowRuns> result;
  const std::vector<std::uint32_t>& starts = plan.row_starts();
  for (std::size_t i = 0; i + 1 < starts.size(); ++i) result.push_back({starts[i], starts[i + 1]});
  return result;
}

}  // namespace vicinal::runtime
