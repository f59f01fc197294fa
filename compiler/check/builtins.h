// The functions of the language: which operations they stand for, or how they are built of them.
#pragma once

#include <span>
#include <string_view>

#include "compiler/ir/module.h"

namespace vicinal::check {

struct Builtin {
  std::string_view name;
  int arity;  // of min and max: at least
  bool variadic;
  // The operation for ints (if any) and for floats; a composite has neither.
  std::optional<ir::Op> on_int, on_float;
  // Composites get their arguments as floats.
  ir::NodeId (*composite)(ir::Module&, std::span<const ir::NodeId>);
  std::string_view doc;
};

const Builtin* find_builtin(std::string_view name);
std::span<const Builtin> builtins();

// Words with a meaning of their own in calls: int float bool len dot sum any.
bool is_special_function(std::string_view name);

}  // namespace vicinal::check
