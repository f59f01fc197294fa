// The list of passes, in order: what happens to a checked module before code is emitted from it.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include "compiler/ir/module.h"

namespace vicinal::passes {

struct Pass {
  std::string_view name;
  std::string_view what;
  ir::Module (*run)(const ir::Module&);
};
std::span<const Pass> pipeline();

struct PassReport {
  std::string_view name;
  double milliseconds;
  std::size_t nodes_before, nodes_after;
};

// Runs the pipeline, verifying after every pass. `observe` (may be null) sees each pass' result.
using Observer = std::function<void(const PassReport&, const ir::Module&)>;
ir::Module run_pipeline(const ir::Module& module, const Observer& observe = nullptr);

// The module as context keys (or the grid's keys) see it: k.context is a constant, what the neighborhoods
// decide of a grid's key too, and what that leaves unused is gone. Stands after the pipeline, since the two
// results go different ways.
ir::Module specialize_keys(const ir::Module& module, bool context_key);

// Whether the mask keeps the key in the query's own place, wherever there is one: then no query is left
// without a key. Of a module as the grid's keys see it.
bool keeps_own_key(const ir::Module& module);

}  // namespace vicinal::passes
