// The IR's operations as LLVM instructions, on scalars and vectors alike; each total, as compiler/ir/ops.def
// defines it. Float operations are single fp32 operations, never contracted, so that masks are exact.
#pragma once

#include <span>

#include "compiler/ir/ops.h"
#include "runtime/cpu/llvm/emitter.h"

namespace vicinal::cpu {

// Operands all scalars or all vectors, of the types that the operation takes.
Value* operation(Emitter& e, ir::Op op, std::span<Value* const> operands);

// What generated code may call, by name.
struct HostFunction {
  const char* name;
  void* address;
};
// Each void (const float* x, const float* y, float* result), kLanes elements.
std::span<const HostFunction> library_functions();

}  // namespace vicinal::cpu
