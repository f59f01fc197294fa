// What a variant's derivatives are and where its gradients go, in words.
#pragma once

#include <string>
#include <vector>

#include "compiler/ir/module.h"

namespace vicinal::driver {

// Of a module with its partials.
struct GradientText {
  std::vector<std::string> lets;
  struct Derivative {
    std::string of, leaf, value;  // "score", "table[h, v1]", "1.0"
  };
  std::vector<Derivative> derivatives;  // in the order of the module's partials
};
GradientText gradient_text(const ir::Module& module);

// "let v1 = tanh(score / cap)", "d(score)/d(score) = 1.0 - v1 * v1", a line each.
std::string print_gradient(const ir::Module& module);

}  // namespace vicinal::driver
