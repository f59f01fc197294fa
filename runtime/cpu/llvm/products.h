// The matrix products of a kernel, and the copies that bring their operands into shape.
#pragma once

#include "runtime/cpu/llvm/emitter.h"
#include "runtime/cpu/llvm/kernel_layout.h"

namespace vicinal::cpu {

// A word is an f32 or, in kernels that multiply pairs (Blocking::per_word), two bf16: neighbouring channels
// of a query or key, neighbouring keys' weights, a channel of neighbouring values; the first in the lower
// half. Blocks of either kind differ in nothing but the instruction that multiplies words.

// void (const T* q, i64 dim_stride, const i64* rows, word* out, float scale): a unit of queries, transposed.
// Pairs are not scaled.
llvm::Function* emit_pack_queries(Emitter& e, const KernelLayout& layout, DType dtype);

// void (const T* x, i64 dim_stride, const i64* rows, as* out, i64 rows): rows of `dim` channels as f32, or as
// they are, with zeros up to `width`.
llvm::Function* emit_pack_rows(Emitter& e, const char* name, DType dtype, DType as, std::int64_t dim,
                               std::int64_t width);

// void (const bf16* x, i64 dim_stride, const i64* rows, word* out, i64 rows): every two rows of values side
// by side, the last one with zeros where it is alone.
llvm::Function* emit_pack_value_pairs(Emitter& e, const KernelLayout& layout);

// Two vectors of f32 as words, rounded to nearest, ties to even.
Value* pairs_of(Emitter& e, Value* first, Value* second);

// Of a vector, from the sum of its channels' squares, in double: added up in f32 it would be off by as much
// as a score may be.
Value* inverse_norm(Emitter& e, Value* squares);

// void (const float* x, float* out, i64 rows): of every row of packed keys 1 / its norm.
llvm::Function* emit_inverse_norms(Emitter& e, const KernelLayout& layout);

// void (float* rows, i64 rows): packed rows of head_dim channels divided by their norms.
llvm::Function* emit_normalize_rows(Emitter& e, const KernelLayout& layout);

// void (const word* k, i64 step, i64 last, const word* queries, float* scores): a block of scores, products
// of `depth` channels. Rows of k after `last` are not read; their scores are anything.
llvm::Function* emit_score_block(Emitter& e, const KernelLayout& layout, const char* name,
                                 std::int64_t depth);

// void (const word* weights, const word* v, i64 step, float* output, const float* rescale, i64 rows,
// const char* next): output = output * rescale + weights * v for a block of queries, by rows of keys or of
// pairs of them. Cache lines from `next` on, one for each row, are fetched meanwhile.
llvm::Function* emit_value_block(Emitter& e, const KernelLayout& layout);

// The same of floats for any number of queries, in which a weight of -0 stands for a key that is not kept:
// void (const float* weights, const float* v, i64 step, float* output, const float* rescale, i64 keys,
// i64 queries)
llvm::Function* emit_exact_values(Emitter& e, const KernelLayout& layout);

// float (i64 rounds), exported: FmaBurst::run. Returns the operations of a round.
double emit_fma_burst(Emitter& e, const char* name);

}  // namespace vicinal::cpu
