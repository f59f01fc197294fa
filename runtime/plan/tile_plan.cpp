#include "runtime/plan/tile_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "runtime/host/parallel.h"

namespace vicinal::plan {
namespace {

using ranges::Truth;

enum class Mark : std::uint8_t { empty, partial, full };

bool open(Truth t) {
  return t.can_hold && t.can_fail;
}

// Writes the rows [first, last) of one slice, in order.
class RowPlanner {
 public:
  RowPlanner(const TileGrid& grid, const MaskPrograms& programs, int effort)
      : grid_(grid), classifier_(programs, grid), effort_(effort) {}

  void slice(std::int64_t b, std::int64_t h) { classifier_.slice(b, h); }

  // A sequence's rows all have the same tiles of keys, so that many rows can be asked about at once.
  void sequence(std::int64_t first, std::int64_t last) {
    grid_.row(first, row_);
    const std::int64_t tiles = row_.grid_tiles;
    const Pieces all = {{0, tiles, false, true}};
    descend(first, last, all);
  }

  void rows(std::int64_t first, std::int64_t last) {
    for (std::int64_t number = first; number < last; ++number) {
      grid_.row(number, row_);
      marks_.assign(static_cast<std::size_t>(row_.grid_tiles), Mark::empty);
      if (row_.tiles > 0) {
        classifier_.queries(row_.queries);
        box_low_.assign(grid_.rank(), 0);
        box_high_.resize(grid_.rank());
        for (std::size_t i = 0; i < grid_.rank(); ++i) box_high_[i] = row_.keys[i].tiles(grid_.shape().k[i]);
        if (row_.grid_tiles > 0) mark_box();
      }
      start_row();
      for (std::int64_t t = 0; t < row_.grid_tiles; ++t)
        append(t, t + 1, marks_[static_cast<std::size_t>(t)]);
      for (std::int64_t t = row_.grid_tiles; t < row_.tiles; ++t) append(t, t + 1, classified(t));
      finish_row();
    }
  }

  std::vector<std::uint32_t> counts;  // runs by row
  std::vector<Run> runs;

 private:
  // Neighbouring tiles of keys that are to be visited by all of some rows.
  struct Piece {
    std::int64_t begin, end;
    bool full, open;
  };
  using Pieces = std::vector<Piece>;

  void set_keys(std::int64_t begin, std::int64_t end) {
    const int tile = grid_.shape().k[0];
    const KeySpan& span = row_.keys[0];
    const int from = span.position(tile, static_cast<int>(begin));
    const std::int64_t to = std::min<std::int64_t>(span.end, from + (end - begin) * tile);
    const Stretch keys{from, static_cast<int>(to - from)};
    classifier_.keys({&keys, 1}, false);
  }

  void refine(const Piece& piece, std::int64_t finest, Pieces& out) {
    if (piece.begin == piece.end) return;
    if (!piece.open) {
      out.push_back(piece);
      return;
    }
    set_keys(piece.begin, piece.end);
    const Truth t = classifier_.evaluate();
    if (ranges::never(t)) return;
    if (ranges::always(t) || piece.end - piece.begin <= finest) {
      out.push_back({piece.begin, piece.end, ranges::always(t), open(t)});
      return;
    }
    const std::int64_t middle = piece.begin + (piece.end - piece.begin) / 2;
    refine({piece.begin, middle, false, true}, finest, out);
    refine({middle, piece.end, false, true}, finest, out);
  }

  // Coarse to fine: of a block of rows first, then of its halves, each asking only about what is still open.
  void descend(std::int64_t first, std::int64_t last, const Pieces& pieces) {
    Stretch queries = grid_.queries(0, first);
    const Stretch end = grid_.queries(0, last - 1);
    queries.count = end.first + end.count - queries.first;
    classifier_.queries({&queries, 1});
    Pieces finer;
    for (const Piece& p : pieces) refine(p, last - first, finer);
    if (last - first > 1) {
      const std::int64_t middle = first + (last - first) / 2;
      descend(first, middle, finer);
      descend(middle, last, finer);
      return;
    }
    row_.queries[0] = queries;
    start_row();
    for (const Piece& p : finer) {
      if (!p.open) append(p.begin, p.end, p.full ? Mark::full : Mark::partial);
      for (std::int64_t t = p.begin; p.open && t < p.end; ++t) append(t, t + 1, settled(t));
    }
    for (std::int64_t t = row_.grid_tiles; t < row_.tiles; ++t) append(t, t + 1, classified(t));
    finish_row();
  }

  // Of a tile that is open at first sight; other boxes are set afterwards, but for the row's queries.
  Mark settled(std::int64_t t) {
    grid_.tile(row_, t, keys_);
    const Verdict v = classifier_.settle(row_.queries, keys_, grid_.is_context(row_, t), effort_);
    classifier_.queries(row_.queries);
    return v == Verdict::empty ? Mark::empty : v == Verdict::full ? Mark::full : Mark::partial;
  }

  Mark classified(std::int64_t t) {
    grid_.tile(row_, t, keys_);
    classifier_.keys(keys_, grid_.is_context(row_, t));
    const Truth truth = classifier_.evaluate();
    return open(truth) ? settled(t) : ranges::always(truth) ? Mark::full : Mark::empty;
  }

  // The box of tiles between box_low_ and box_high_, by axis: all at once, or in halves.
  void mark_box() {
    const std::vector<std::int64_t> low = box_low_, high = box_high_;
    std::size_t longest = 0;
    for (std::size_t i = 0; i < low.size(); ++i)
      if (high[i] - low[i] > high[longest] - low[longest]) longest = i;
    if (high[longest] - low[longest] == 1) {
      const std::int64_t t = number_of(low);
      marks_[static_cast<std::size_t>(t)] = classified(t);
      return;
    }
    keys_.resize(grid_.rank());
    for (std::size_t i = 0; i < low.size(); ++i) {
      const KeySpan& span = row_.keys[i];
      const int tile = grid_.shape().k[i], from = span.position(tile, static_cast<int>(low[i]));
      const std::int64_t to = std::min<std::int64_t>(span.end, from + (high[i] - low[i]) * tile);
      keys_[i] = {coordinate_at(grid_.axis(i), span, from), static_cast<int>(to - from)};
    }
    classifier_.keys(keys_, false);
    const Truth t = classifier_.evaluate();
    if (ranges::never(t)) return;
    if (ranges::always(t)) {
      mark_all(low, high);
      return;
    }
    const std::int64_t middle = low[longest] + (high[longest] - low[longest]) / 2;
    box_low_ = low;
    box_high_ = high;
    box_high_[longest] = middle;
    mark_box();
    box_low_ = low;
    box_high_ = high;
    box_low_[longest] = middle;
    mark_box();
  }

  void mark_all(const std::vector<std::int64_t>& low, const std::vector<std::int64_t>& high) {
    std::vector<std::int64_t> at = low;
    for (;;) {
      marks_[static_cast<std::size_t>(number_of(at))] = Mark::full;
      std::size_t i = at.size();
      while (i > 0 && ++at[i - 1] == high[i - 1]) {
        at[i - 1] = low[i - 1];
        --i;
      }
      if (i == 0) return;
    }
  }

  std::int64_t number_of(const std::vector<std::int64_t>& at) const {
    std::int64_t number = 0;
    for (std::size_t i = 0; i < at.size(); ++i)
      number = number * row_.keys[i].tiles(grid_.shape().k[i]) + at[i];
    return number;
  }

  void start_row() { first_run_ = runs.size(); }

  // The next tiles of the row, which do not overlap those before them.
  void append(std::int64_t begin, std::int64_t end, Mark m) {
    if (m == Mark::empty || begin == end) return;
    // A tile that the keys' end cuts is masked there.
    if (m == Mark::full && !grid_.whole(row_, end - 1)) {
      append(begin, end - 1, Mark::full);
      append(end - 1, end, Mark::partial);
      return;
    }
    const std::uint32_t full = m == Mark::full ? 1 : 0, last = static_cast<std::uint32_t>(end) << 1 | full;
    if (runs.size() > first_run_ && runs.back().end() == begin && runs.back().full() == (full != 0))
      runs.back().end_and_full = last;
    else
      runs.push_back({static_cast<std::uint32_t>(begin), last});
  }

  void finish_row() { counts.push_back(static_cast<std::uint32_t>(runs.size() - first_run_)); }

  const TileGrid& grid_;
  Classifier classifier_;
  int effort_;
  Row row_;
  std::vector<Mark> marks_;    // of the grid's tiles of a row, where they are not met in order
  std::size_t first_run_ = 0;  // of the row
  std::vector<Stretch> keys_;
  std::vector<std::int64_t> box_low_, box_high_;
};

}  // namespace

Slices make_slices(const runtime::Problem& problem, bool reads_batch, bool reads_head, bool reads_kv_head) {
  Slices s;
  if (reads_batch) s.batches = problem.batch;
  if (reads_head || reads_kv_head) s.heads = reads_head ? problem.heads : problem.kv_heads;
  s.heads_per_slice = s.heads == 0 ? 1 : problem.heads / s.heads;
  return s;
}

class Planner {
 public:
  Planner(const Masks& masks, const runtime::Problem& problem, const TileShape& shape,
          const PlanOptions& options)
      : masks_(masks),
        problem_(problem),
        options_(options),
        plan_(TileGrid(problem, shape)),
        programs_(masks, problem, options.threads) {}

  Result<TilePlan> run() {
    plan_.listed_ = !programs_.always();
    if (!plan_.listed_) return std::move(plan_);
    plan_.depends_on_data_ = std::ranges::count(inputs_read(masks_), true) != 0;
    plan_.slices_ =
        make_slices(problem_, programs_.reads_batch(), programs_.reads_head(), programs_.reads_kv_head());
    return list();
  }

 private:
  // Rows of one slice that one thread plans at a time.
  struct Part {
    std::vector<std::uint32_t> counts;
    std::vector<Run> runs;
  };

  Result<TilePlan> list() {
    const std::int64_t rows = plan_.grid_.rows();
    const std::int64_t parts = rows == 0 ? 0 : std::min<std::int64_t>(rows, 4 * options_.threads);
    std::vector<Part> done(static_cast<std::size_t>(parts * plan_.slices_.count()));
    host::parallel_for(static_cast<std::int64_t>(done.size()), options_.threads, [&](std::int64_t n) {
      RowPlanner planner(plan_.grid_, programs_, options_.effort);
      const std::int64_t slice = n / parts, part = n % parts;
      planner.slice(slice / plan_.slices_.heads, slice % plan_.slices_.heads * plan_.slices_.heads_per_slice);
      const std::int64_t first = rows * part / parts, last = rows * (part + 1) / parts;
      if (problem_.axes.empty())
        planner.sequence(first, last);
      else
        planner.rows(first, last);
      done[static_cast<std::size_t>(n)] = {std::move(planner.counts), std::move(planner.runs)};
    });
    std::size_t runs = 0;
    for (const Part& p : done) runs += p.runs.size();
    if (runs > std::numeric_limits<std::uint32_t>::max())
      return unexpected(ErrorKind::limit, fmt::format("the tile plan has {} runs, more than 2^32", runs),
                        "use larger tiles, or split the batch or the heads");
    plan_.runs_.reserve(runs);
    plan_.row_starts_.reserve(static_cast<std::size_t>(rows * plan_.slices_.count()) + 1);
    plan_.row_starts_.push_back(0);
    for (const Part& p : done) {
      for (const std::uint32_t count : p.counts)
        plan_.row_starts_.push_back(plan_.row_starts_.back() + count);
      plan_.runs_.insert(plan_.runs_.end(), p.runs.begin(), p.runs.end());
    }
    return std::move(plan_);
  }

  const Masks& masks_;
  const runtime::Problem& problem_;
  PlanOptions options_;
  TilePlan plan_;
  MaskPrograms programs_;
};

Result<TilePlan> plan_tiles(const Masks& masks, const runtime::Problem& problem, const TileShape& shape,
                            const PlanOptions& options) {
  return Planner(masks, problem, shape, options).run();
}

}  // namespace vicinal::plan
