// A whole kernel, of either pass, as an LLVM module.
#pragma once

#include "runtime/cpu/llvm/emitter.h"
#include "runtime/cpu/llvm/kernel_layout.h"

namespace vicinal::cpu {

inline constexpr const char *kBeginSymbol = "vicinal_begin", *kVisitSymbol = "vicinal_visit",
                            *kEndSymbol = "vicinal_end";

// Each adds one function of a Code, under the name above, and all that it calls.
void emit_begin(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel);
void emit_visit(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel);
void emit_end(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel);

void emit_backward_begin(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel);
void emit_backward_visit(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel);
void emit_backward_end(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel);

// All three of the kernel's pass.
void emit_kernel(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel);

}  // namespace vicinal::cpu
