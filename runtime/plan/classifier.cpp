#include "runtime/plan/classifier.h"

#include <algorithm>

#include "compiler/support/check.h"

namespace vicinal::plan {
namespace {

using ranges::Range;
using ranges::Truth;

std::optional<analysis::BoxProgram> program(const ir::Module* module) {
  if (module == nullptr || !module->root(ir::Root::mask).valid()) return std::nullopt;
  const auto value = module->constant_value(module->root(ir::Root::mask));
  if (value && value->b) return std::nullopt;
  return analysis::BoxProgram(*module, module->root(ir::Root::mask));
}

}  // namespace

MaskPrograms::MaskPrograms(const Masks& masks, const runtime::Problem& problem, unsigned threads)
    : module_(*masks.grid),
      grid_(program(masks.grid)),
      context_(program(masks.context)),
      launch_([&problem](const ir::Symbol& s) { return runtime::launch_value(problem, s); }) {
  std::vector<analysis::RangedDimensions> ranged(module_.inputs.size());
  for (const auto* p : {&grid_, &context_})
    if (*p)
      for (std::size_t i = 0; i < ranged.size(); ++i) ranged[i].include((*p)->ranged_dimensions()[i]);
  captured_ = std::make_unique<const CapturedRanges>(module_, problem, ranged, threads);
}

bool MaskPrograms::reads_batch() const {
  return (grid_ && grid_->reads_batch()) || (context_ && context_->reads_batch());
}
bool MaskPrograms::reads_head() const {
  return (grid_ && grid_->reads_head()) || (context_ && context_->reads_head());
}
bool MaskPrograms::reads_kv_head() const {
  return (grid_ && grid_->reads_kv_head()) || (context_ && context_->reads_kv_head());
}

std::vector<bool> inputs_read(const Masks& masks) {
  std::vector<bool> read(masks.grid->inputs.size());
  for (const ir::Module* module : {masks.grid, masks.context})
    if (const auto p = program(module))
      for (std::size_t i = 0; i < read.size(); ++i) read[i] = read[i] || p->inputs_read()[i];
  return read;
}

Classifier::Classifier(const MaskPrograms& programs, const TileGrid& grid)
    : programs_(programs), grid_(grid) {
  if (programs.grid_) grid_mask_.emplace(*programs.grid_, programs.launch_, *programs.captured_);
  if (programs.context_) context_mask_.emplace(*programs.context_, programs.launch_, *programs.captured_);
  query_box_.resize(grid.rank());
  key_box_.resize(grid.rank());
  // A context key has no coordinates; nothing that counts reads them.
  query_tokens_.coordinate.assign(grid.rank(), ranges::point(0));
  key_tokens_.coordinate = query_tokens_.coordinate;
  slice(0, 0);
}

void Classifier::slice(std::int64_t b, std::int64_t h) {
  const runtime::Problem& p = grid_.problem();
  const std::int64_t kv_h = p.kv_heads == 0 ? 0 : h / std::max<std::int64_t>(1, p.heads / p.kv_heads);
  for (auto* mask : {&grid_mask_, &context_mask_})
    if (*mask) (*mask)->slice(static_cast<int>(b), static_cast<int>(h), static_cast<int>(kv_h));
}

// Coordinates, and the positions that they flatten to: exact along one axis, their bounds and common step
// over several.
void Classifier::locate(std::span<const Stretch> box, const std::vector<runtime::GridAxis>& axes,
                        std::int64_t shift, analysis::TokenBox& out) const {
  for (std::size_t i = 0; i < box.size(); ++i) {
    const auto [first, count] = box[i];
    const int step = grid_.axis(i).dilation;
    out.coordinate[i] =
        count == 1 ? ranges::point(first) : Range{first, first + (count - 1) * step, static_cast<u32>(step)};
  }
  Range position = out.coordinate[0];
  for (std::size_t i = 1; i < box.size(); ++i)
    position = ranges::add_i(ranges::mul_i(position, ranges::point(static_cast<int>(axes[i].extent))),
                             out.coordinate[i]);
  out.index = position;
  out.position = shift == 0 ? position : ranges::add_i(position, ranges::point(static_cast<int>(shift)));
}

void Classifier::queries(std::span<const Stretch> box) {
  std::ranges::copy(box, query_box_.begin());
  const runtime::Problem& p = grid_.problem();
  locate(box, p.q_axis, programs_.module_.align_end ? p.keys - p.tokens : 0, query_tokens_);
  grid_queries_stale_ = context_queries_stale_ = true;
}

void Classifier::keys(std::span<const Stretch> box, bool context) {
  std::ranges::copy(box, key_box_.begin());
  in_context_ = context;
  auto& mask = context ? context_mask_ : grid_mask_;
  if (!mask) return;
  if (context) {
    key_tokens_.position = ranges::make_range(box[0].first, box[0].first + box[0].count - 1, 1);
  } else {
    locate(box, grid_.problem().k_axis, 0, key_tokens_);
  }
  mask->keys(key_tokens_);
}

// Every axis alone: a pair is inside when it is so along all of them, and the axes are independent.
Truth Classifier::neighborhood() const {
  Truth all = ranges::point(true);
  for (std::size_t i = 0; i < query_box_.size(); ++i) {
    const Axis& axis = grid_.axis(i);
    const Span span = key_span(axis, query_box_[i], 0, axis.extent);
    const int first = key_box_[i].first / axis.dilation, end = first + key_box_[i].count;
    all = ranges::and_b(
        all, {first < span.end && end > span.begin, !(first >= span.sure_begin && end <= span.sure_end)});
  }
  return all;
}

Truth Classifier::evaluate() {
  const bool everywhere = in_context_ || grid_.problem().axes.empty();
  const Truth near = everywhere ? ranges::point(true) : neighborhood();
  auto& mask = in_context_ ? context_mask_ : grid_mask_;
  if (!mask || ranges::never(near)) return near;
  bool& stale = in_context_ ? context_queries_stale_ : grid_queries_stale_;
  if (stale) mask->queries(query_tokens_);
  stale = false;
  return ranges::and_b(near, mask->evaluate());
}

// Depth first, so that a pair of each kind is met early.
struct Classifier::Search {
  Classifier& classifier;
  bool context;
  int effort;
  bool kept = false, dropped = false;

  // Small enough to be copied at every step, without a word to the heap.
  struct Box {
    Stretch axis[kMaxRank];
    std::size_t rank;

    explicit Box(std::span<const Stretch> box) : rank(box.size()) { std::ranges::copy(box, axis); }
    Box(const Box& other) : Box(std::span<const Stretch>(other)) {}
    operator std::span<const Stretch>() const { return {axis, rank}; }
    const Stretch* begin() const { return axis; }
    const Stretch* end() const { return axis + rank; }
  };

  bool done() const { return (kept && dropped) || effort <= 0; }

  Truth look(const Box& queries, const Box& keys) {
    --effort;
    classifier.queries(queries);
    classifier.keys(keys, context);
    return classifier.evaluate();
  }

  int dilation(Side side, std::size_t axis) const {
    return side == Side::keys && context ? 1 : classifier.grid_.axis(axis).dilation;
  }

  // The token that stands at so many quarters of every axis.
  Box token(Side side, const Box& box, int quarters) const {
    Box result = box;
    for (Stretch* s = result.axis; s < result.axis + result.rank; ++s) {
      const int at = static_cast<int>(static_cast<std::int64_t>(s->count - 1) * quarters / 4);
      *s = {s->first + at * dilation(side, static_cast<std::size_t>(s - result.axis)), 1};
    }
    return result;
  }

  void probe(const Box& queries, const Box& keys) {
    constexpr int quarters[][2] = {{0, 4}, {4, 0}, {0, 0}, {4, 4}, {2, 2}, {1, 3}, {3, 1}};
    for (const auto& [q, k] : quarters) {
      if (done()) return;
      note(look(token(Side::queries, queries, q), token(Side::keys, keys, k)));
    }
  }

  void note(Truth t) {
    kept = kept || ranges::always(t);
    dropped = dropped || ranges::never(t);
  }

  static std::int64_t size(const Box& box) {
    std::int64_t tokens = 1;
    for (const Stretch& s : box) tokens *= s.count;
    return tokens;
  }
  // Halves along the longest axis.
  static std::size_t longest(const Box& box) {
    return static_cast<std::size_t>(std::ranges::max_element(box, {}, &Stretch::count) - box.begin());
  }

  void halve(const Box& queries, const Box& keys) {
    const Side side = size(queries) >= size(keys) ? Side::queries : Side::keys;
    const Box& box = side == Side::queries ? queries : keys;
    const std::size_t axis = longest(box);
    const Stretch whole = box.axis[axis];
    if (whole.count == 1) {
      effort = 0;  // a single pair that cannot be told: a value that is NaN
      return;
    }
    const int half = whole.count / 2;
    for (int part = 0; part < 2 && !done(); ++part) {
      Box halved = box;
      halved.axis[axis] = part == 0 ? Stretch{whole.first, half}
                                    : Stretch{whole.first + half * dilation(side, axis), whole.count - half};
      const Box& q = side == Side::queries ? halved : queries;
      const Box& k = side == Side::queries ? keys : halved;
      const Truth t = look(q, k);
      note(t);
      if (t.can_hold && t.can_fail) halve(q, k);
    }
  }
};

Verdict Classifier::settle(std::span<const Stretch> queries, std::span<const Stretch> keys, bool context,
                           int effort) {
  Search search{*this, context, effort};
  const Search::Box q(queries), k(keys);
  search.probe(q, k);
  if (!search.done()) search.halve(q, k);
  if (search.kept && search.dropped) return Verdict::partial;
  if (search.effort <= 0) return Verdict::undecided;
  return search.kept ? Verdict::full : Verdict::empty;
}

}  // namespace vicinal::plan
