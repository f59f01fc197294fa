#include "runtime/plan/tile_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
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

  void rows(std::int64_t first, std::int64_t last) {
    // A sequence's rows all visit the same tiles, so that many rows can be asked about at once.
    const std::int64_t together =
        grid_.problem().axes.empty() ? std::clamp(grid_.grid_rows(), first, last) : first;
    if (first < together) {
      grid_.row(first, row_);
      set_rows(first, together);
      if (row_.grid_tiles > 0) ask(0, row_.grid_tiles, together - first);
      descend(first, together, 0);
      pieces_.clear();
    }
    for (std::int64_t number = together; number < last; ++number) row(number);
  }

  std::vector<std::uint32_t> counts;  // runs by row
  std::vector<Run> runs;

 private:
  // The box of the rows at hand, and one that they visit.
  void own(std::span<const Stretch> box, bool context) {
    if (grid_.owner() == Side::queries)
      classifier_.queries(box);
    else
      classifier_.keys(box, context);
  }
  void visit(std::span<const Stretch> box, bool context) {
    if (grid_.owner() == Side::queries)
      classifier_.keys(box, context);
    else
      classifier_.queries(box);
  }
  int visited_extent(std::size_t axis) const { return grid_.shape().of(grid_.visited())[axis]; }

  void row(std::int64_t number) {
    grid_.row(number, row_);
    marks_.assign(static_cast<std::size_t>(row_.grid_tiles), Mark::empty);
    if (row_.tiles > 0) own(row_.tokens, grid_.is_context(row_, 0));
    if (row_.grid_tiles > 0) {
      Places end = {};
      for (std::size_t i = 0; i < grid_.rank(); ++i) end[i] = row_.reach[i].tiles(visited_extent(i));
      mark_box({}, end);
    }
    start_row();
    for (std::int64_t t = 0; t < row_.grid_tiles; ++t) append(t, t + 1, marks_[static_cast<std::size_t>(t)]);
    finish_row();
  }

  // Neighbouring tiles that some rows visit: fully, all of them, or else open.
  struct Piece {
    std::int64_t begin, end;
    bool open;
  };

  // The visited tokens of tiles [begin, end) along an axis.
  Stretch visited(std::size_t axis, std::int64_t begin, std::int64_t end) const {
    const int tile = visited_extent(axis);
    const Span& reach = row_.reach[axis];
    const int from = reach.position(tile, static_cast<int>(begin));
    const std::int64_t to = std::min<std::int64_t>(reach.end, from + (end - begin) * tile);
    return {coordinate_at(grid_.axis(axis), reach, from), static_cast<int>(to - from)};
  }

  // Asks the rows at hand about a piece, and about its halves while these are longer than the rows are many.
  void ask(std::int64_t begin, std::int64_t end, std::int64_t rows) {
    const Stretch tokens = visited(0, begin, end);
    visit({&tokens, 1}, false);
    const Truth t = classifier_.evaluate();
    if (ranges::never(t)) return;
    if (open(t) && end - begin > rows + rows / 2)
      ask_halves(begin, end, rows);
    else
      pieces_.push_back({begin, end, open(t)});
  }
  void ask_halves(std::int64_t begin, std::int64_t end, std::int64_t rows) {
    const std::int64_t middle = begin + (end - begin) / 2;
    ask(begin, middle, rows);
    ask(middle, end, rows);
  }

  // Coarse to fine: of a block of rows first, then of its halves, each asking only about what is still open.
  // `pieces_` is a stack: those of the block are its top, from `base` on.
  void descend(std::int64_t first, std::int64_t last, std::size_t base) {
    if (last - first == 1) {
      write_row(base);
      return;
    }
    const std::int64_t middle = first + (last - first) / 2;
    const std::size_t top = pieces_.size();
    for (const auto& [from, to] : {std::pair(first, middle), std::pair(middle, last)}) {
      set_rows(from, to);
      for (std::size_t i = base; i < top; ++i) {
        const Piece piece = pieces_[i];
        // What is open for twice the rows, and longer than these, is most likely open for these.
        if (!piece.open)
          pieces_.push_back(piece);
        else if (piece.end - piece.begin > to - from)
          ask_halves(piece.begin, piece.end, to - from);
        else
          ask(piece.begin, piece.end, to - from);
      }
      descend(from, to, top);
      pieces_.resize(top);
    }
  }

  void set_rows(std::int64_t first, std::int64_t last) {
    Stretch& tokens = row_.tokens[0];
    tokens = grid_.tokens(grid_.owner(), 0, first);
    const Stretch end = grid_.tokens(grid_.owner(), 0, last - 1);
    tokens.count = end.first + end.count - tokens.first;
    own(row_.tokens, false);
  }

  // Its tokens are set.
  void write_row(std::size_t base) {
    start_row();
    for (std::size_t i = base; i < pieces_.size(); ++i) {
      Piece p = pieces_[i];
      while (p.open && i + 1 < pieces_.size() && pieces_[i + 1].open && pieces_[i + 1].begin == p.end)
        p.end = pieces_[++i].end;
      if (p.open)
        settle_run(p.begin, p.end);
      else
        append(p.begin, p.end, Mark::full);
    }
    finish_row();
  }

  // Tiles that are all open at first sight. Of many neighbours it pays to ask together whether all are mixed.
  void settle_run(std::int64_t begin, std::int64_t end) {
    if (end - begin <= 2) {
      for (std::int64_t t = begin; t < end; ++t) append(t, t + 1, settled(t));
    } else if (mixed(begin, end)) {
      append(begin, end, Mark::partial);
    } else {
      const std::int64_t middle = begin + (end - begin) / 2;
      settle_run(begin, middle);
      settle_run(middle, end);
    }
  }

  // Whether of the row's first and last token one keeps every pair with the tiles and the other none.
  bool mixed(std::int64_t begin, std::int64_t end) {
    const Stretch tokens = visited(0, begin, end), row = row_.tokens[0];
    const Stretch first{row.first, 1}, last{row.first + row.count - 1, 1};
    visit({&tokens, 1}, false);
    own({&first, 1}, false);
    const Truth at_first = classifier_.evaluate();
    Truth at_last = at_first;
    if (!open(at_first)) {
      own({&last, 1}, false);
      at_last = classifier_.evaluate();
    }
    own({&row, 1}, false);
    return !open(at_last) && ranges::always(at_first) != ranges::always(at_last);
  }

  // Of a tile that is open at first sight; other boxes are set afterwards, but for the row's own.
  Mark settled(std::int64_t t) {
    const bool context = grid_.is_context(row_, t);
    grid_.tile(row_, t, box_);
    const bool forward = grid_.owner() == Side::queries;
    const Verdict v =
        classifier_.settle(forward ? row_.tokens : box_, forward ? box_ : row_.tokens, context, effort_);
    own(row_.tokens, context);
    return v == Verdict::empty ? Mark::empty : v == Verdict::full ? Mark::full : Mark::partial;
  }

  Mark classified(std::int64_t t) {
    if (!grid_.has_tokens(row_, t)) return Mark::empty;
    grid_.tile(row_, t, box_);
    visit(box_, grid_.is_context(row_, t));
    const Truth truth = classifier_.evaluate();
    return open(truth) ? settled(t) : ranges::always(truth) ? Mark::full : Mark::empty;
  }

  // Tiles of a row by their places along each axis.
  using Places = std::array<std::int64_t, kMaxRank>;

  // The box of tiles from `low` up to `high`, by axis: all at once, or in halves.
  void mark_box(const Places& low, const Places& high) {
    std::size_t longest = 0;
    for (std::size_t i = 0; i < grid_.rank(); ++i)
      if (high[i] - low[i] > high[longest] - low[longest]) longest = i;
    if (high[longest] - low[longest] == 1) {
      const std::int64_t t = number_of(low);
      marks_[static_cast<std::size_t>(t)] = classified(t);
      return;
    }
    box_.resize(grid_.rank());
    for (std::size_t i = 0; i < grid_.rank(); ++i) box_[i] = visited(i, low[i], high[i]);
    visit(box_, false);
    const Truth t = classifier_.evaluate();
    if (ranges::never(t)) return;
    if (ranges::always(t)) {
      mark_all(low, high);
      return;
    }
    const std::int64_t middle = low[longest] + (high[longest] - low[longest]) / 2;
    Places cut = high;
    cut[longest] = middle;
    mark_box(low, cut);
    cut = low;
    cut[longest] = middle;
    mark_box(cut, high);
  }

  void mark_all(const Places& low, const Places& high) {
    Places at = low;
    for (;;) {
      marks_[static_cast<std::size_t>(number_of(at))] = Mark::full;
      std::size_t i = grid_.rank();
      while (i > 0 && ++at[i - 1] == high[i - 1]) {
        at[i - 1] = low[i - 1];
        --i;
      }
      if (i == 0) return;
    }
  }

  std::int64_t number_of(const Places& at) const {
    std::int64_t number = 0;
    for (std::size_t i = 0; i < grid_.rank(); ++i)
      number = number * row_.reach[i].tiles(visited_extent(i)) + at[i];
    return number;
  }

  void start_row() { first_run_ = runs.size(); }

  // The next tiles of the row, which do not overlap those before them.
  void append(std::int64_t begin, std::int64_t end, Mark m) {
    if (m == Mark::empty || begin == end) return;
    // A tile that the end of the visited tokens cuts is masked there.
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

  // With the tiles of the context.
  void finish_row() {
    for (std::int64_t t = row_.grid_tiles; t < row_.tiles; ++t) append(t, t + 1, classified(t));
    counts.push_back(static_cast<std::uint32_t>(runs.size() - first_run_));
  }

  const TileGrid& grid_;
  Classifier classifier_;
  int effort_;
  Row row_;
  std::vector<Piece> pieces_;
  std::vector<Mark> marks_;    // of the grid's tiles of a row, where they are not met in order
  std::size_t first_run_ = 0;  // of the row
  std::vector<Stretch> box_;   // visited
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
        plan_(TileGrid(problem, shape, options.owner)),
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
