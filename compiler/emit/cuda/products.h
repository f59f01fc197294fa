// The matrix products of a Hopper kernel as CUDA: inline PTX that names every accumulator, so that it is
// printed for the sizes at hand.
#pragma once

#include <string>

#include "compiler/emit/cuda/kernel_source.h"

namespace vicinal::emit {

// A struct `Products` with scores(), values() and hold(). The options are a Hopper kernel's.
std::string products_struct(const KernelOptions& options);

// Of the backward pass, for so many queries to a tile and 128 keys: scores(), d_weights(), d_values(),
// d_keys(), d_queries() and hold().
std::string backward_products_struct(const KernelOptions& options, int tile_q);

}  // namespace vicinal::emit
