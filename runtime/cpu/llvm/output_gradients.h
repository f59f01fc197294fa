// Gradients through the output expression: from those of the result to those of what stands before it.
#pragma once

#include "runtime/cpu/llvm/emitter.h"
#include "runtime/cpu/llvm/kernel_layout.h"

namespace vicinal::cpu {

// void (QueryTile*): takes the rows of d_out back through the expression; `shared` has the gradients of the
// LSE after it. Adds to totals and gradients of what the expression reads.
llvm::Function* emit_output_gradients(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel);

}  // namespace vicinal::cpu
