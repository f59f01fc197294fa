// The matrix products of a kernel, and the copies that bring their operands into shape.
#pragma once

#include "runtime/cpu/llvm/emitter.h"
#include "runtime/cpu/llvm/kernel_layout.h"

namespace vicinal::cpu {

// void (const T* q, i64 dim_stride, const i64* rows, float* out, float scale): a unit of queries, transposed.
llvm::Function* emit_pack_queries(Emitter& e, const KernelLayout& layout, DType dtype);

// void (const T* x, i64 dim_stride, const i64* rows, float* out, i64 rows): rows of `dim` channels as f32,
// with zeros up to `width`.
llvm::Function* emit_pack_rows(Emitter& e, const char* name, DType dtype, std::int64_t dim,
                               std::int64_t width);

// Of a vector, from the sum of its channels' squares, in double: added up in f32 it would be off by as much
// as a score may be.
Value* inverse_norm(Emitter& e, Value* squares);

// void (const float* x, float* out, i64 rows): of every row of packed keys 1 / its norm.
llvm::Function* emit_inverse_norms(Emitter& e, const KernelLayout& layout);

// void (float* rows, i64 rows): packed rows of head_dim channels divided by their norms.
llvm::Function* emit_normalize_rows(Emitter& e, const KernelLayout& layout);

// void (const float* k, i64 step, i64 last, const float* queries, float* scores): a block of scores, products
// of `depth` channels. Rows of k after `last` are not read; their scores are anything.
llvm::Function* emit_score_block(Emitter& e, const KernelLayout& layout, const char* name,
                                 std::int64_t depth);

// void (const float* weights, const float* v, i64 step, float* output, const float* rescale, i64 keys,
// const char* next): output = output * rescale + weights * v for a block of queries. Cache lines from `next`
// on, one for each key, are fetched meanwhile.
llvm::Function* emit_value_block(Emitter& e, const KernelLayout& layout);

// The same for any number of queries, in which a weight of -0 stands for a key that is not kept:
// void (const float* weights, const float* v, i64 step, float* output, const float* rescale, i64 keys,
// i64 queries)
llvm::Function* emit_exact_values(Emitter& e, const KernelLayout& layout);

// float (i64 rounds), exported: FmaBurst::run. Returns the operations of a round.
double emit_fma_burst(Emitter& e, const char* name);

}  // namespace vicinal::cpu
