// The places of a variant where something learnable is read, and how the gradients that arrive there are
// added up on a device.
#pragma once

#include "compiler/analysis/index_pattern.h"
#include "compiler/emit/specialized.h"

namespace vicinal::emit {

struct GradientSite {
  std::size_t partial = 0;  // its number in the module
  bool param = false;       // or an input
  std::uint32_t index = 0;
  bool dot = false, second = false;  // in a dot(), as its second tensor
  analysis::IndexUse use = {};
  analysis::AccumulationChoice adding = {};
};
// Of a module with its partials. `context_key`: it speaks of context keys.
std::vector<GradientSite> gradient_sites(const SpecializedKeys& keys, bool context_key);

}  // namespace vicinal::emit
