// Operations: what the table in ops.def says of each.
#pragma once

#include <span>
#include <string_view>

#include "compiler/ir/type.h"

namespace vicinal::ir {

enum class Op : std::uint8_t {
#define VICINAL_OP(id, ...) id,
#include "compiler/ir/ops.def"
};

inline constexpr int kMaxArity = 3;

struct OpInfo {
  Op op;
  std::string_view name;
  int arity;
  Type operands[kMaxArity];
  Type result;
  bool commutative, transcendental;
  std::string_view cuda, exact_cuda;
  Value (*exact)(const Value*);  // fp32, one rounding an operation
  Value (*wide)(const Value*);   // floats in double
};

const OpInfo& info(Op op);
std::span<const OpInfo> all_ops();
// Null when there is none of that name.
const OpInfo* find_op(std::string_view name);

}  // namespace vicinal::ir
