// Names that writers bring along from PyTorch, FlexAttention, Python and C, and what to write instead.
#pragma once

#include <string_view>

namespace vicinal::check {

struct ForeignName {
  std::string_view written;
  std::string_view meant;  // a name to put in its place; empty where only the advice helps
  std::string_view advice;
};
// Null when the name is nobody's habit.
const ForeignName* find_foreign_name(std::string_view name);
// Modules whose members are known under their own names here: torch.tanh is tanh.
bool is_foreign_module(std::string_view name);

}  // namespace vicinal::check
