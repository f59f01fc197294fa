// From scaled dot products to weights: score and mask expressions, and the running softmax, on sixteen
// queries at a time.
#pragma once

#include "runtime/cpu/llvm/expressions.h"
#include "runtime/cpu/llvm/kernel_layout.h"

namespace vicinal::cpu {

// Whether products are scores once they are scaled, and queries are packed so that they are.
bool is_plain_product(const emit::CpuKernel& kernel, const KernelLayout& layout);

// void (QueryTile*, KeyTile*, i64 query, i64 column, i64 first, i64 keys): turns the dot products of sixteen
// queries, from the unit's `column` on, with keys of the tile, from `first` on, into what their softmax
// takes, -inf where a key is not kept, and finds the largest; without a softmax, into weights, -0 where a key
// is not kept.
llvm::Function* emit_scores(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel,
                            KeyTileKind kind);

// void (QueryTile*, i64 query, i64 column, i64 keys): weights of a softmax in place of its exponents; the sum
// and maximum so far, and what the output so far is to be multiplied with. `exact`: a weight of -0 says that
// the key is not kept. Where products take pairs, so do rows of weights; sums are of weights before they are
// rounded.
llvm::Function* emit_weights(Emitter& e, const KernelLayout& layout, bool exact);

// The same signature without a softmax: weights that emit_scores left as f32, as pairs.
llvm::Function* emit_weight_pairs(Emitter& e, const KernelLayout& layout);

}  // namespace vicinal::cpu
