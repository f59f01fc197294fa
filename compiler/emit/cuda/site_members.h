// The members of an emitted variant that speak of its sites: where it reads something learnable, which
// element, and with which slope (templates/vicinal/backward_arguments.cuh).
#pragma once

#include <string>
#include <vector>

#include "compiler/emit/cuda/declarations.h"

namespace vicinal::emit {

// Something learnable that some derivative is taken of: an input or a param, by its number.
struct CapturedSlot {
  bool param;
  std::uint32_t index;
  bool in_place;  // whether the sums are in the gradient itself, and in no list
};
// Of a module with its partials, in the order in which they are met.
std::vector<CapturedSlot> captured_slots(const Specialized& differentiated);

std::string site_members(const Specialized& differentiated, const Declarations& declarations,
                         const std::vector<CapturedSlot>& slots);

}  // namespace vicinal::emit
