// A variant after all passes, ready for a backend: what the grid's keys see, what context keys see, and which
// indices are safe.
#pragma once

#include <vicinal/dtype.h>

#include "compiler/analysis/index_bounds.h"
#include "compiler/ir/module.h"
#include "compiler/passes/score_form.h"

namespace vicinal::emit {

struct SpecializedKeys {
  ir::Module module;
  analysis::IndexBounds bounds;
};

struct Specialized {
  SpecializedKeys grid;
  std::optional<SpecializedKeys> context;  // when the variant has context keys

  // Tables of params, extents and inputs are the same in both.
  const ir::Module& declarations() const { return grid.module; }
};

Specialized specialize(const ir::Module& after_pipeline);

// Whether some pair may be left out by a mask.
bool has_mask(const ir::Module& module);
bool has_mask(const Specialized& variant);
// Whether some score is more than the scaled dot product.
bool has_score(const Specialized& variant);

// 1 / sqrt(head dim), for a variant that names no scale.
float default_scale(int head_dim);

// What an input's elements are when the caller does not say.
DType default_input_dtype(ir::Type type);

// The scores of both kinds of keys, split for a kernel with one softmax over them: one factor and one shift.
// Where there are two scores, each stays in one piece unless it is the dot product.
struct ScoreForms {
  passes::ScoreForm grid;
  std::optional<passes::ScoreForm> context;
};
ScoreForms score_forms(const Specialized& variant, int head_dim,
                       passes::Distances distances = passes::Distances::slope);

// By number: whether any code reads it.
struct Uses {
  std::vector<bool> params, extents, inputs;
  std::vector<bool> row_inputs;  // read by scale, sink or output, hence even where there is no key
};
Uses uses(const Specialized& variant);

}  // namespace vicinal::emit
