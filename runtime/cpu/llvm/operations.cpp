#include "runtime/cpu/llvm/operations.h"

#include <cmath>

#include "runtime/cpu/llvm/elementary.h"

namespace vicinal::cpu {
namespace {

using ir::Op;
using llvm::Intrinsic::ID;

template <auto F>
void by_lane(const float* x, const float*, float* result) {
  for (int i = 0; i < kLanes; ++i) result[i] = F(x[i]);
}
void powers(const float* x, const float* y, float* result) {
  for (int i = 0; i < kLanes; ++i) result[i] = std::pow(x[i], y[i]);
}
constexpr auto sine = [](float x) { return std::sin(x); };
constexpr auto cosine = [](float x) { return std::cos(x); };
constexpr auto tangent = [](float x) { return std::tan(x); };
constexpr auto error_function = [](float x) { return std::erf(x); };

HostFunction library_function(const char* name, void (*function)(const float*, const float*, float*)) {
  return {name, reinterpret_cast<void*>(function)};
}

// Floor of x / y with x // 0 = 0. By doubles, whose quotients of 32-bit ints have the right floor: two that
// differ lie further apart than a rounding.
Value* floor_divide(Emitter& e, Value* x, Value* y) {
  llvm::Type* const type = x->getType();
  Value* const wide =
      e.b.CreateFDiv(e.b.CreateSIToFP(x, e.like(x, e.f64)), e.b.CreateSIToFP(y, e.like(y, e.f64)));
  Value* const zero = e.b.CreateICmpEQ(y, e.whole(type, 0));
  Value* const minus_one = e.b.CreateICmpEQ(y, e.whole(type, -1));
  // Nothing is converted that an int does not hold.
  Value* const safe = e.b.CreateSelect(e.b.CreateOr(zero, minus_one), e.number(wide->getType(), 0), wide);
  Value* const quotient = e.b.CreateFPToSI(e.unary(llvm::Intrinsic::floor, safe), type);
  return e.b.CreateSelect(minus_one, e.b.CreateNeg(x), quotient);
}

// The divisor where it is a power of two that is known; 0 otherwise.
std::int64_t known_power(Value* y) {
  const auto* constant = llvm::dyn_cast<llvm::Constant>(y);
  if (constant == nullptr) return 0;
  if (constant->getType()->isVectorTy()) constant = constant->getSplatValue();
  const auto* number = llvm::dyn_cast_or_null<llvm::ConstantInt>(constant);
  return number != nullptr && number->getValue().isStrictlyPositive() && number->getValue().isPowerOf2()
             ? number->getSExtValue()
             : 0;
}

Value* floordiv(Emitter& e, Value* x, Value* y) {
  if (const std::int64_t power = known_power(y))
    return e.b.CreateAShr(x, e.whole(x->getType(), std::countr_zero(static_cast<std::uint64_t>(power))));
  return floor_divide(e, x, y);
}

Value* floormod(Emitter& e, Value* x, Value* y) {
  if (const std::int64_t power = known_power(y)) return e.b.CreateAnd(x, e.whole(x->getType(), power - 1));
  Value* const rest = e.b.CreateSub(x, e.b.CreateMul(floor_divide(e, x, y), y));
  Value* const zero = e.whole(x->getType(), 0);
  return e.b.CreateSelect(e.b.CreateICmpEQ(y, zero), zero, rest);
}

Value* shift(Emitter& e, Value* x, Value* n, bool left) {
  llvm::Type* const type = x->getType();
  Value* const inside = e.b.CreateICmpULT(n, e.whole(type, 32));
  Value* const by = e.b.CreateAnd(n, e.whole(type, 31));
  Value* const out = left ? e.whole(type, 0) : e.b.CreateAShr(x, e.whole(type, 31));
  return e.b.CreateSelect(inside, left ? e.b.CreateShl(x, by) : e.b.CreateAShr(x, by), out);
}

// IEEE 754-2019 minimumNumber and maximumNumber: a number wins over NaN, and -0 lies below +0.
Value* extremum(Emitter& e, Value* x, Value* y, bool least) {
  Value* const x_bits = e.as_int(x);
  Value* const y_bits = e.as_int(y);
  Value* const equal = least ? e.b.CreateOr(x_bits, y_bits) : e.b.CreateAnd(x_bits, y_bits);
  Value* const x_wins = least ? e.b.CreateFCmpOLT(x, y) : e.b.CreateFCmpOGT(x, y);
  Value* result = e.b.CreateSelect(e.b.CreateOr(x_wins, e.b.CreateFCmpUNO(y, y)), x, y);
  return e.b.CreateSelect(e.b.CreateFCmpOEQ(x, y), e.as_float(equal), result);
}

Value* sign(Emitter& e, Value* x) {
  llvm::Type* const type = x->getType();
  Value* const zero = e.number(type, 0);
  Value* const below = e.b.CreateSelect(e.b.CreateFCmpOLT(x, zero), e.number(type, -1), x);
  return e.b.CreateSelect(e.b.CreateFCmpOGT(x, zero), e.number(type, 1), below);
}

}  // namespace

std::span<const HostFunction> library_functions() {
  static const HostFunction functions[] = {
      library_function("vicinal_pow", powers), library_function("vicinal_sin", by_lane<sine>),
      library_function("vicinal_cos", by_lane<cosine>), library_function("vicinal_tan", by_lane<tangent>),
      library_function("vicinal_erf", by_lane<error_function>)};
  return functions;
}

Value* operation(Emitter& e, Op op, std::span<Value* const> o) {
  llvm::IRBuilder<>& b = e.b;
  Value* const x = o[0];
  Value* const y = o.size() > 1 ? o[1] : nullptr;
  llvm::Type* const type = x->getType();
  const auto binary = [&](ID id) -> Value* { return b.CreateBinaryIntrinsic(id, x, y); };
  const auto quotient = [&] { return e.unary(llvm::Intrinsic::floor, b.CreateFDiv(x, y)); };
  switch (op) {
    case Op::add_i: return b.CreateAdd(x, y);
    case Op::sub_i: return b.CreateSub(x, y);
    case Op::mul_i: return b.CreateMul(x, y);
    case Op::neg_i: return b.CreateNeg(x);
    case Op::floordiv_i: return floordiv(e, x, y);
    case Op::floormod_i: return floormod(e, x, y);
    case Op::min_i: return binary(llvm::Intrinsic::smin);
    case Op::max_i: return binary(llvm::Intrinsic::smax);
    case Op::abs_i: return b.CreateBinaryIntrinsic(llvm::Intrinsic::abs, x, b.getFalse());
    case Op::sign_i:
      return b.CreateSub(b.CreateZExt(b.CreateICmpSGT(x, e.whole(type, 0)), type),
                         b.CreateZExt(b.CreateICmpSLT(x, e.whole(type, 0)), type));
    case Op::bitand_i: return b.CreateAnd(x, y);
    case Op::bitor_i: return b.CreateOr(x, y);
    case Op::bitxor_i: return b.CreateXor(x, y);
    case Op::bitnot_i: return b.CreateNot(x);
    case Op::shl_i: return shift(e, x, y, true);
    case Op::shr_i: return shift(e, x, y, false);
    case Op::eq_i:
    case Op::eq_b: return b.CreateICmpEQ(x, y);
    case Op::ne_i:
    case Op::ne_b: return b.CreateICmpNE(x, y);
    case Op::lt_i: return b.CreateICmpSLT(x, y);
    case Op::le_i: return b.CreateICmpSLE(x, y);

    case Op::add_f: return b.CreateFAdd(x, y);
    case Op::sub_f: return b.CreateFSub(x, y);
    case Op::mul_f: return b.CreateFMul(x, y);
    case Op::div_f: return b.CreateFDiv(x, y);
    case Op::neg_f: return b.CreateFNeg(x);
    case Op::floordiv_f: return quotient();
    case Op::floormod_f: return b.CreateFSub(x, b.CreateFMul(y, quotient()));
    case Op::min_f: return extremum(e, x, y, true);
    case Op::max_f: return extremum(e, x, y, false);
    case Op::abs_f: return e.unary(llvm::Intrinsic::fabs, x);
    case Op::sign_f: return sign(e, x);
    case Op::floor_f: return e.unary(llvm::Intrinsic::floor, x);
    case Op::ceil_f: return e.unary(llvm::Intrinsic::ceil, x);
    case Op::round_f: return e.unary(llvm::Intrinsic::rint, x);
    case Op::sqrt_f: return e.unary(llvm::Intrinsic::sqrt, x);
    case Op::isnan_f: return b.CreateFCmpUNO(x, x);
    case Op::eq_f: return b.CreateFCmpOEQ(x, y);
    case Op::ne_f: return b.CreateFCmpUNE(x, y);
    case Op::lt_f: return b.CreateFCmpOLT(x, y);
    case Op::le_f: return b.CreateFCmpOLE(x, y);

    case Op::pow_f: return library_function(e, "vicinal_pow", x, y);
    case Op::exp_f: return exp(e, x);
    case Op::exp2_f: return exp2(e, x);
    case Op::log_f: return log(e, x);
    case Op::log2_f: return log2(e, x);
    case Op::rsqrt_f: return b.CreateFDiv(e.number(type, 1), e.unary(llvm::Intrinsic::sqrt, x));
    case Op::tanh_f:
    case Op::tanh_approx_f: return tanh(e, x);
    case Op::sigmoid_f: return sigmoid(e, x);
    case Op::sin_f: return library_function(e, "vicinal_sin", x);
    case Op::cos_f: return library_function(e, "vicinal_cos", x);
    case Op::tan_f: return library_function(e, "vicinal_tan", x);
    case Op::erf_f: return library_function(e, "vicinal_erf", x);

    case Op::and_b: return b.CreateAnd(x, y);
    case Op::or_b: return b.CreateOr(x, y);
    case Op::not_b: return b.CreateNot(x);

    case Op::select_i:
    case Op::select_f:
    case Op::select_b: return b.CreateSelect(x, y, o[2]);
    case Op::float_i: return b.CreateSIToFP(x, e.like(x, e.f32));
    case Op::int_f: {
      llvm::Type* const result = e.like(x, e.i32);
      return b.CreateIntrinsic(llvm::Intrinsic::fptosi_sat, {result, type}, {x});
    }
    case Op::int_b: return b.CreateZExt(x, e.like(x, e.i32));
  }
  llvm_unreachable("an operation");
}

}  // namespace vicinal::cpu
