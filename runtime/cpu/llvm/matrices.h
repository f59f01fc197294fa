// Matrix registers (Intel AMX: eight of sixteen rows of 64 bytes), and the products of a kernel that go
// through them. A product takes 16 x 32 bf16 from one register, 16 rows of words from another, and adds to
// 16 x 16 f32 in a third.
//
// Keys are a left operand as they lie, packed queries and pairs of weights a right one as they are for
// products of pairs; values alone are arranged anew, channels as rows. So the output lies transposed until a
// task ends.
#pragma once

#include "runtime/cpu/llvm/emitter.h"
#include "runtime/cpu/llvm/kernel_layout.h"
#include "runtime/cpu/llvm/operations.h"

namespace vicinal::cpu {

// Before a task's first product, and after its last one.
void configure_matrices(Emitter& e);
void release_matrices(Emitter& e);

// emit_pack_value_pairs' signature: blocks of kMatrixDepth keys, [channels][words of pairs], with zeros for
// keys that are not there.
llvm::Function* emit_pack_value_matrices(Emitter& e, const KernelLayout& layout);

// emit_score_block's signature and result. All keys of a block are read; zeros stand in channels up to
// layout.head_channels.
llvm::Function* emit_score_matrices(Emitter& e, const KernelLayout& layout);

// emit_value_block's signature: to output[channels][tile_q], of a block of queries, by weights that are zero
// up to the next multiple of kMatrixDepth keys. Fetches nothing.
llvm::Function* emit_value_matrices(Emitter& e, const KernelLayout& layout);

// void (const word* from, i64 from_step, word* to, i64 to_step): sixteen rows of as many words.
llvm::Function* emit_transpose(Emitter& e);

// What code for CpuTarget::Matrices::emulated calls in place of instructions, for the calling thread.
std::span<const HostFunction> matrix_functions();

}  // namespace vicinal::cpu
