// From scores to their gradients: what stands between the products of a backward pass, on sixteen queries at
// a time.
#pragma once

#include "runtime/cpu/llvm/pair_places.h"

namespace vicinal::cpu {

// void (QueryTile*, KeyTile*, i64 query, i64 column, i64 first, i64 keys): of sixteen queries, from the
// unit's `column` on, and keys of the tile, from `first` on, turns scaled dot products into weights and <dO,
// V> into gradients of the scaled dot products; adds to totals and gradients of what is captured. In exact
// code a weight of -0 says that the key is not kept, and a gradient of -0 that the score does not depend on
// the product.
llvm::Function* emit_pair_gradients(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel,
                                    KeyTileKind kind);

}  // namespace vicinal::cpu
