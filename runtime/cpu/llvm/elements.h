// Elements of tensors as f32, ints and bools, whatever their type in memory.
#pragma once

#include <vicinal/dtype.h>

#include "compiler/ir/type.h"
#include "runtime/cpu/llvm/emitter.h"

namespace vicinal::cpu {

llvm::Type* memory_type(Emitter& e, DType dtype);

// What was loaded, scalar or vector, as the language has it: f32, i32 or i1.
Value* from_memory(Emitter& e, DType dtype, ir::Type type, Value* raw);
// Rounds f32 to nearest, ties to even.
Value* to_memory(Emitter& e, DType dtype, Value* x);

// `lanes` neighbouring elements of a float type as f32, from the address of the first on.
Value* load_floats(Emitter& e, DType dtype, Value* address, int lanes);

}  // namespace vicinal::cpu
