// Random valid specs: every statement, operator, builtin and type of the language, under names that would
// mean something else in C++ or CUDA.
#pragma once

#include <string>

namespace vicinal::testing {

struct RandomSpec {
  std::string text;
  std::string mask_only;  // the same block with its plain scores: what it keeps is the same
};

// The same for the same seed. `tame`: scores that a rounding error moves about as far as itself, so that fp32
// can be compared with double; otherwise anything goes, such as exp(exp(score)) // 0.
RandomSpec random_spec(unsigned seed, bool tame);

}  // namespace vicinal::testing
