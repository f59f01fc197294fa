// Which tiles of keys each tile of queries visits, and in which of them every pair is kept; or, transposed,
// which tiles of queries each tile of keys visits.
//
// Where neighborhoods alone decide, that is a formula (TileGrid) and nothing is stored. Where a mask has its
// say, a list is: per row the runs of tiles to visit. What is not listed is proved empty; what is marked full
// is proved full; the rest is partial, which is always correct.
#pragma once

#include "runtime/plan/classifier.h"
#include "runtime/plan/tile_grid.h"

namespace vicinal::plan {

// Tiles [begin, end) of a row, by their numbers. Two 32-bit words, as kernels read them.
struct Run {
  std::uint32_t begin;
  std::uint32_t end_and_full;  // the lowest bit says full

  std::uint32_t end() const { return end_and_full >> 1; }
  bool full() const { return (end_and_full & 1) != 0; }
  friend bool operator==(const Run&, const Run&) = default;
};

// Batches and heads whose masks are the same share a slice of the list.
struct Slices {
  std::int64_t batches = 1, heads = 1;
  std::int64_t heads_per_slice = 1;  // neighbouring query heads

  std::int64_t count() const { return batches * heads; }
  std::int64_t of(std::int64_t b, std::int64_t h) const {
    return (batches == 1 ? 0 : b) * heads + (heads == 1 ? 0 : h / heads_per_slice);
  }
};

// As few as a mask allows that reads these.
Slices make_slices(const runtime::Problem& problem, bool reads_batch, bool reads_head, bool reads_kv_head);

struct PlanOptions {
  Side owner = Side::queries;  // of the rows; a plan whose rows are tiles of keys is the transposed one
  unsigned threads = 1;
  // Evaluations spent at most on a tile that the first one leaves open; most show a pair of each kind at
  // once.
  int effort = 256;
};

class TilePlan {
 public:
  const TileGrid& grid() const { return grid_; }
  // False: the formula alone, every row the same in all slices.
  bool listed() const { return listed_; }
  const Slices& slices() const { return slices_; }
  // By slice and row: where its runs start; one more at the end.
  const std::vector<std::uint32_t>& row_starts() const { return row_starts_; }
  const std::vector<Run>& runs() const { return runs_; }
  std::size_t bytes() const {
    return row_starts_.size() * sizeof(row_starts_[0]) + runs_.size() * sizeof(Run);
  }
  // Reads captured inputs, so that other contents make another plan.
  bool depends_on_data() const { return depends_on_data_; }

  // visit(tile number, full) for the tiles of a row, in order. `row` is grid().row(number).
  template <class Visit>
  void each_tile(std::int64_t slice, std::int64_t number, const Row& row, Visit visit) const {
    if (!listed_) {
      for (std::int64_t t = 0; t < row.tiles; ++t)
        if (grid_.has_tokens(row, t)) visit(t, grid_.full(row, t));
      return;
    }
    const auto at = static_cast<std::size_t>(slice * grid_.rows() + number);
    for (std::uint32_t r = row_starts_[at]; r < row_starts_[at + 1]; ++r)
      for (std::int64_t t = runs_[r].begin; t < runs_[r].end(); ++t) visit(t, runs_[r].full());
  }

 private:
  friend class Planner;
  explicit TilePlan(TileGrid grid) : grid_(std::move(grid)) {}

  TileGrid grid_;
  bool listed_ = false, depends_on_data_ = false;
  Slices slices_;
  std::vector<std::uint32_t> row_starts_;
  std::vector<Run> runs_;
};

// `problem` must outlive the plan. Where the masks read inputs, these are in host memory. Errors (limit): a
// list of more than 2^32 runs.
Result<TilePlan> plan_tiles(const Masks& masks, const runtime::Problem& problem, const TileShape& shape,
                            const PlanOptions& options = {});

}  // namespace vicinal::plan
