// Where the gradients of a captured tensor arrive: how the element that a pair reads follows the pair.
#pragma once

#include <set>
#include <span>
#include <string_view>

#include "compiler/ir/module.h"

namespace vicinal::analysis {

enum class IndexPattern {
  head,      // one element for all pairs of a batch and head
  row,       // follows the query alone
  column,    // follows the key alone
  distance,  // follows how far the key is from the query along some axes
  pair,      // an element of its own for every pair of a batch and head
  general,   // anything else
};

struct IndexUse {
  IndexPattern pattern = IndexPattern::head;
  std::set<std::uint32_t> axes;  // of a distance; of a sequence: 0
};
// Of the indices that one read gives a tensor: int nodes.
IndexUse index_use(const ir::Module& module, std::span<const ir::NodeId> indices);

// How a kernel adds up gradients that arrive by such indices, always in the same order.
enum class Accumulation {
  block_reduction,
  row_reduction,
  column_reduction,
  diagonal,
  with_the_tile,
  ordered
};
struct AccumulationChoice {
  Accumulation how = Accumulation::ordered;
  std::string_view why = {};
};
// `clamped`: some index is brought into range, so that different ones may meet. `context_key`: the key is one
// of the context's.
AccumulationChoice accumulation(IndexPattern pattern, bool clamped, bool context_key);

std::string_view name_of(IndexPattern pattern);
std::string_view name_of(Accumulation accumulation);

}  // namespace vicinal::analysis
