// What a box of queries keeps of a box of keys: none, all or some. Neighborhood and mask together.
#pragma once

#include <vicinal/dtype.h>

#include <memory>
#include <optional>
#include <span>

#include "compiler/analysis/box_program.h"
#include "runtime/plan/captured_ranges.h"
#include "runtime/plan/tile_grid.h"

namespace vicinal::plan {

// The masks of a variant, specialised for the grid's keys and for context keys. A module without a mask keeps
// every pair.
struct Masks {
  const ir::Module* grid = nullptr;
  const ir::Module* context = nullptr;  // null where there are no context keys
};

// Both masks as programs over boxes, and what they need to know of the problem. Shared by threads.
class MaskPrograms {
 public:
  MaskPrograms(const Masks& masks, const runtime::Problem& problem, unsigned threads);

  bool always() const { return !grid_ && !context_; }
  bool reads_batch() const;
  bool reads_head() const;
  bool reads_kv_head() const;

 private:
  friend class Classifier;
  const ir::Module& module_;
  std::optional<analysis::BoxProgram> grid_, context_;  // none: always true
  std::unique_ptr<const CapturedRanges> captured_;
  ir::SymbolLookup launch_;
};

// By input: whether a mask reads it, so that another content makes another plan.
std::vector<bool> inputs_read(const Masks& masks);

enum class Verdict : std::uint8_t { empty, full, partial, undecided };

// One per thread. Boxes are given by axis, as tokens of one dilation group; keys of the context as one
// stretch.
class Classifier {
 public:
  Classifier(const MaskPrograms& programs, const TileGrid& grid);

  void slice(std::int64_t b, std::int64_t h);
  void queries(std::span<const Stretch> box);
  void keys(std::span<const Stretch> box, bool context);
  // Of the boxes set last; sound, and exact for boxes of one token.
  ranges::Truth evaluate();

  // The boxes themselves where the first answer is "cannot say": looks for a pair that is kept and one that
  // is not, then halves the boxes until every part is settled or `effort` evaluations are spent. Leaves other
  // boxes set.
  Verdict settle(std::span<const Stretch> queries, std::span<const Stretch> keys, bool context, int effort);

 private:
  struct Search;
  ranges::Truth neighborhood() const;
  void locate(std::span<const Stretch> box, const std::vector<runtime::GridAxis>& axes, std::int64_t shift,
              analysis::TokenBox& out) const;

  const MaskPrograms& programs_;
  const TileGrid& grid_;
  std::optional<analysis::BoxProgram::Evaluator> grid_mask_, context_mask_;
  std::vector<Stretch> query_box_, key_box_;
  bool in_context_ = false, grid_queries_stale_ = true, context_queries_stale_ = true;
  analysis::TokenBox query_tokens_, key_tokens_;
};

}  // namespace vicinal::plan
