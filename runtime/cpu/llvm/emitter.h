// LLVM instructions as generated kernels need them: vectors of kLanes elements, loops, and arithmetic on
// scalars and vectors alike.
#pragma once

#include <llvm/IR/IRBuilder.h>
#include <llvm/IR/Module.h>

#include <functional>
#include <vector>

#include "runtime/cpu/llvm/cpu_target.h"

namespace vicinal::cpu {

using llvm::Value;
using Values = std::vector<Value*>;

class Emitter {
 public:
  Emitter(llvm::Module& module, const CpuTarget& target);

  llvm::IRBuilder<> b;
  llvm::Type* const f32;
  llvm::Type* const f64;
  llvm::Type* const i1;
  llvm::Type* const i8;
  llvm::Type* const i16;
  llvm::Type* const i32;
  llvm::Type* const i64;
  llvm::Type* const ptr;

  llvm::Module& module() const { return module_; }
  const CpuTarget& target() const { return target_; }

  static bool is_vector(const Value* x) { return x->getType()->isVectorTy(); }
  llvm::Type* vector(llvm::Type* element, int lanes = kLanes) const;
  // The same shape with other elements.
  llvm::Type* like(const Value* x, llvm::Type* element) const;

  // Constants of a type, vectors filled with it.
  Value* number(llvm::Type* type, double x) const;
  Value* whole(llvm::Type* type, std::int64_t x) const;
  Value* index(std::int64_t x) const { return whole(i64, x); }
  Value* bits(llvm::Type* type, std::uint32_t x) const { return whole(type, static_cast<std::int32_t>(x)); }
  Value* infinity(llvm::Type* type, bool negative) const;
  Value* lane_numbers() const;  // 0, 1, ... as i32

  Value* splat(Value* scalar, int lanes = kLanes);
  Value* as_vector(Value* x) { return is_vector(x) ? x : splat(x); }

  // Addresses in elements.
  Value* at(llvm::Type* element, Value* base, Value* offset);
  Value* at(llvm::Type* element, Value* base, std::int64_t offset);
  Value* load(llvm::Type* type, Value* address);
  void store(Value* value, Value* address);
  // The module's one array of the name, aligned for whole vectors.
  Value* table(const std::string& name, llvm::Constant* content);
  // Memory of the call, `count` vectors of f32.
  Value* scratch(int count);

  // x / divisor of 0 <= x < 4096 and a divisor up to 16, which a division's instructions take longer to
  // compile.
  Value* small_quotient(Value* x, std::int64_t divisor);

  // To a multiple of a power of two.
  Value* round_up(Value* x, std::int64_t step) {
    return b.CreateAnd(b.CreateAdd(x, whole(x->getType(), step - 1)), whole(x->getType(), -step));
  }
  Value* fma(Value* x, Value* y, Value* z);  // x * y + z, in one rounding where the processor has it
  Value* unary(llvm::Intrinsic::ID id, Value* x);
  Value* larger(Value* x, Value* y);  // y where x is NaN; one instruction
  Value* as_float(Value* x) { return b.CreateBitCast(x, like(x, f32)); }
  Value* as_int(Value* x) { return b.CreateBitCast(x, like(x, i32)); }
  void prefetch(Value* address);

  // body(i, carried) returns the next carried values; i = first, first + step, ... < end. `loop` runs at
  // least once.
  using Body = std::function<Values(Value* i, const Values& carried)>;
  Values loop(Value* first, Value* end, std::int64_t step, Values carried, const Body& body);
  Values loop_if_any(Value* first, Value* end, std::int64_t step, Values carried, const Body& body);
  void when(Value* condition, const std::function<void()>& then,
            const std::function<void()>& otherwise = nullptr);

  // Starts a function and stands in it. Private ones are called from the module alone, and never inlined: a
  // stage of its own keeps its registers.
  llvm::Function* function(const std::string& name, llvm::Type* result,
                           const std::vector<llvm::Type*>& parameters, bool exported = false);

 private:
  llvm::Module& module_;
  const CpuTarget& target_;
};

}  // namespace vicinal::cpu
