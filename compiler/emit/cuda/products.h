// The matrix products of a Hopper kernel as CUDA: inline PTX that names every accumulator, so that it is
// printed for the sizes at hand.
#pragma once

#include <string>

#include <vicinal/dtype.h>

namespace vicinal::emit {

// A struct `Products` with scores(), values() and hold(). `dtype`: f16 or bf16.
std::string products_struct(DType dtype, int tile_k, int value_dim);

}  // namespace vicinal::emit
