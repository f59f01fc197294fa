// What explaining a tile plan found out: what its report and its pictures are made of.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "compiler/ir/module.h"
#include "runtime/plan/tile_cost.h"

namespace vicinal::cli {

// A plan's cost, and over how many batches and heads each of its slices is repeated. FLOPs are a forward
// pass's.
struct Figures {
  plan::TileCost cost;
  double copies = 0;
  std::int64_t head_dim = 0, value_dim = 0;

  double flops() const { return copies * plan::forward_flops(cost.computed(), head_dim, value_dim); }
  std::optional<double> useful_flops() const {
    if (!cost.useful) return std::nullopt;
    return copies * plan::forward_flops(*cost.useful, head_dim, value_dim);
  }
};

// What was asked and what came of it.
struct ExplainedTiles {
  const ir::Module& module;
  const plan::TilePlan& plan;
  Figures figures;
  bool shape_given;                        // by the user
  std::vector<plan::ShapeChoice> choices;  // best first; none where nothing was to be chosen
  std::vector<std::string> inputs;         // that the plan is made of
  double ms;                               // that planning took
  // To draw: of a slice, and with two axes or more one row.
  std::int64_t batch, head, row;
  bool row_given;

  const plan::TileGrid& grid() const { return plan.grid(); }
  bool transposed() const { return grid().owner() == plan::Side::keys; }
  const runtime::Problem& problem() const { return grid().problem(); }
  std::int64_t slice() const { return plan.slices().of(batch, head); }
  bool empty() const { return problem().rows() == 0 || problem().local_keys() + problem().context == 0; }
  bool draws_row() const { return grid().rank() > 1 && !empty(); }
};

}  // namespace vicinal::cli
