// The products of a backward pass whose results are sums in memory: dQ, dK and dV.
#pragma once

#include "runtime/cpu/llvm/emitter.h"
#include "runtime/cpu/llvm/kernel_layout.h"

namespace vicinal::cpu {

// void (const float* d_scores, const float* k, i64 step, float* d_query, i64 keys, const char* next, i64
// lines): d_query += transposed(d_scores) * k for a block of queries. From `next` on so many cache lines for
// each key are fetched meanwhile, 1 or 2.
llvm::Function* emit_query_sums(Emitter& e, const KernelLayout& layout);

// void (const float* weights, const float* rows, float* sums, const i64* sum_row, i64 queries): sums[sum_row]
// += weights * rows for a block of keys; rows and sums are `width` wide.
llvm::Function* emit_key_sums(Emitter& e, const KernelLayout& layout, const char* name, std::int64_t width);

// All three sums of a unit of queries, in which a weight of -0 stands for a key that is not kept: void (const
// float* weights, const float* d_scores, const float* k, i64 step, QueryTile*, const i64* sum_row, i64 keys,
// i64 unit, i64 queries)
llvm::Function* emit_exact_sums(Emitter& e, const KernelLayout& layout);

}  // namespace vicinal::cpu
