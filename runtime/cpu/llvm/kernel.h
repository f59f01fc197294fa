// A whole forward kernel as an LLVM module.
#pragma once

#include "runtime/cpu/llvm/emitter.h"
#include "runtime/cpu/llvm/kernel_layout.h"

namespace vicinal::cpu {

inline constexpr const char *kBeginSymbol = "vicinal_begin", *kVisitSymbol = "vicinal_visit",
                            *kEndSymbol = "vicinal_end";

// Adds the three functions of a Code, under these names, and all that they call.
void emit_kernel(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel);

}  // namespace vicinal::cpu
