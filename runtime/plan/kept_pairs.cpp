#include "runtime/plan/kept_pairs.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>

#include "runtime/host/parallel.h"

namespace vicinal::plan {
namespace {

std::int64_t size(const std::vector<Stretch>& box) {
  std::int64_t tokens = 1;
  for (const Stretch& s : box) tokens *= s.count;
  return tokens;
}

// The pairs that a list of tiles keeps. Those of partial tiles are found by halving what is mixed, up to a
// number of looks that a plan always takes: the answer does not depend on the machine.
class KeptPairs {
 public:
  KeptPairs(const TilePlan& plan, const Masks& masks, unsigned threads, std::int64_t most_looks)
      : plan_(plan),
        grid_(plan.grid()),
        programs_(masks, grid_.problem(), threads),
        threads_(threads),
        most_looks_(most_looks) {}

  std::optional<double> count() {
    const std::int64_t rows = grid_.rows() * plan_.slices().count();
    const std::int64_t parts = std::min<std::int64_t>(rows, 16 * threads_);
    host::parallel_for(parts, threads_, [&](std::int64_t part) {
      Part counter(*this);
      for (std::int64_t n = rows * part / parts; n < rows * (part + 1) / parts; ++n) counter.add_row(n);
      looks_ += counter.looks;
      const std::lock_guard guard(lock_);
      pairs_ += counter.pairs;
    });
    if (looks_ > most_looks_) return std::nullopt;
    return pairs_;
  }

 private:
  struct Part {
    explicit Part(KeptPairs& o) : owner(o), classifier(o.programs_, o.grid_) {}

    void add_row(std::int64_t n) {
      const TilePlan& plan = owner.plan_;
      const Slices& slices = plan.slices();
      const std::int64_t slice = n / owner.grid_.rows();
      owner.grid_.row(n % owner.grid_.rows(), row);
      classifier.slice(slice / slices.heads, slice % slices.heads * slices.heads_per_slice);
      const auto at = static_cast<std::size_t>(n);
      for (std::uint32_t r = plan.row_starts()[at]; r < plan.row_starts()[at + 1]; ++r)
        add_run(plan.runs()[r]);
    }

    void add_run(const Run& run) {
      if (run.full()) {  // and whole
        const std::int64_t tokens =
            (run.end() - run.begin) * owner.grid_.shape().tokens(owner.grid_.visited());
        pairs += static_cast<double>(size(row.tokens)) * static_cast<double>(tokens);
        return;
      }
      for (std::int64_t t = run.begin; t < run.end() && !gave_up(); ++t) {
        owner.grid_.tile(row, t, visited);
        context = owner.grid_.is_context(row, t);
        if (owner.grid_.owner() == Side::queries)
          add(row.tokens, visited);
        else
          add(visited, row.tokens);
      }
    }

    void add(const std::vector<Stretch>& queries, const std::vector<Stretch>& box) {
      if (gave_up()) return;
      ++looks;
      classifier.queries(queries);
      classifier.keys(box, context);
      const auto truth = classifier.evaluate();
      const std::int64_t q = size(queries), k = size(box);
      if (!truth.can_fail) pairs += static_cast<double>(q) * static_cast<double>(k);
      if (!truth.can_fail || !truth.can_hold || (q == 1 && k == 1)) return;
      const bool of_queries = q >= k;
      for (const std::vector<Stretch>& half : halves(of_queries ? queries : box, !of_queries && context)) {
        if (of_queries)
          add(half, box);
        else
          add(queries, half);
      }
    }

    std::array<std::vector<Stretch>, 2> halves(const std::vector<Stretch>& box, bool of_context) const {
      const auto longest = std::ranges::max_element(box, {}, &Stretch::count) - box.begin();
      const auto axis = static_cast<std::size_t>(longest);
      const int step = of_context ? 1 : owner.grid_.axis(axis).dilation, half = box[axis].count / 2;
      std::array<std::vector<Stretch>, 2> parts = {box, box};
      parts[0][axis].count = half;
      parts[1][axis] = {box[axis].first + half * step, box[axis].count - half};
      return parts;
    }

    // The sum over all parts is looked at now and then, and when they are done.
    bool gave_up() {
      if (looks >= 1024) {
        owner.looks_ += looks;
        looks = 0;
      }
      return owner.looks_ > owner.most_looks_;
    }

    KeptPairs& owner;
    Classifier classifier;
    Row row;
    std::vector<Stretch> visited;
    bool context = false;
    std::int64_t looks = 0;
    double pairs = 0;
  };

  const TilePlan& plan_;
  const TileGrid& grid_;
  const MaskPrograms programs_;
  const unsigned threads_;
  const std::int64_t most_looks_;
  std::atomic<std::int64_t> looks_ = 0;
  std::mutex lock_;
  double pairs_ = 0;
};

}  // namespace

std::optional<double> count_kept_pairs(const TilePlan& plan, const Masks& masks, unsigned threads,
                                       std::int64_t most_looks) {
  return KeptPairs(plan, masks, threads, most_looks).count();
}

}  // namespace vicinal::plan
