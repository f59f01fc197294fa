// What the Hopper kernel asks of a variant beyond every kernel's contract: its score and mask taken apart by
// where they are computed (templates/vicinal/hopper/contract.cuh).
#pragma once

#include <vicinal/dtype.h>

#include <optional>

#include "compiler/analysis/placement.h"
#include "compiler/analysis/row_limits.h"
#include "compiler/emit/cuda/declarations.h"
#include "compiler/passes/score_form.h"
#include "compiler/passes/tanh_gain.h"

namespace vicinal::emit {

class HopperMembers {
 public:
  HopperMembers(const Specialized& variant, const KernelOptions& options);

  // Members of the emitted Variant.
  std::string text(const Names& names) const;
  // Whether more than a scaled dot product is computed for an element.
  bool computes_scores() const { return has_core() || grid_.form.slope.valid(); }
  // Whether the score is more than a multiple of the dot product.
  bool has_core() const { return grid_.has_core(); }
  // Whether the factor of dot products is not the same for all heads.
  bool factor_varies() const;
  // Whether limits leave some of the mask.
  bool asks() const { return !grid_.limits.rest.empty(); }
  // Whether some axis has a dilation.
  bool dilated() const;
  // Whether keys end somewhere for a query, and whether they do on both sides of it.
  bool limited() const;
  bool windowed() const;
  // Whether neighbouring queries share windows.
  bool strided() const;
  bool causal() const;
  // Keys that a query sees in its windows; 0 where that is not known or not limited.
  int window_keys() const;
  // Whether limits() leaves keys out.
  bool has_limits() const { return grid_.has_limits(); }
  // Of Row and Column; 0 where they have nothing.
  int row_bytes() const;
  int column_bytes() const;
  // Of scores that are a tanh and nothing more.
  std::optional<passes::TanhGain> gain() const;
  // Whether the mask that limits leave is a few instructions for an element.
  bool simple_keeps() const;
  // Whether the mask has transcendental functions. They go through double, and of some the table for large
  // arguments lies in local memory, on which the assembler of CUDA 13.0 fails in a kernel that moves
  // registers between its warps.
  bool transcendental_mask() const;
  // Whether a score takes loops over inputs, or very many instructions, for an element. They are unrolled for
  // every score of a thread, which takes the compiler minutes.
  bool costly_scores() const;

 private:
  // Of one kind of key.
  struct Side {
    std::string prefix;  // of the names of its values
    passes::ScoreForm form;
    analysis::IndexBounds bounds;
    analysis::RowLimits limits;  // of the grid's keys; of the context, whose keys are few, all is `rest`
    std::vector<ir::NodeId> score_rows, score_columns, mask_rows, mask_columns;

    Side(passes::ScoreForm split, bool context, std::string name);
    ir::NodeId core() const { return form.module.root(ir::Root::score); }
    bool has_core() const { return !form.core_is_score; }
    bool has_limits() const {
      return !limits.begins.empty() || !limits.ends.empty() || !limits.conditions.empty();
    }
  };
  // A group of values of a side that are kept: in what they are named, and how they are printed.
  struct Group {
    const Side* side;
    const std::vector<ir::NodeId>* nodes;
    std::string prefix;
    bool exact;
  };

  explicit HopperMembers(ScoreForms forms);
  std::vector<Group> rows() const;
  std::vector<Group> columns() const;
  static int bytes(const std::vector<Group>& groups);

  Side grid_;
  std::optional<Side> context_;
};

}  // namespace vicinal::emit
