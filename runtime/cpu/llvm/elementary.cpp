#include "runtime/cpu/llvm/elementary.h"

#include <span>

namespace vicinal::cpu {
namespace {

constexpr double kLog2E = 1.4426950408889634, kLn2 = 0.6931471805599453;
// ln 2 in two parts, of which the first has so few bits that its products with whole numbers are exact.
constexpr double kLn2High = 0x1.62e4p-1, kLn2Low = kLn2 - kLn2High;

// A number whose addition to |x| < 2^22 leaves the rounded x in the lowest bits.
constexpr double kRounder = 0x1.8p23;

// Minimax polynomials, found by reweighted least squares, highest power first; relative errors before
// rounding: 9.2e-8 and 2.0e-9 of 2^r for |r| <= 1/2, 8.1e-10 of log, 3.6e-8 of tanh up to 0.55.
constexpr double kExp2Short[] = {0.0013264727, 0.009671513, 0.055507336, 0.24022242, 0.693147, 1};
constexpr double kExp2[] = {0.00015353358, 0.0013398875, 0.009618437, 0.055503324, 0.24022648, 0.6931472, 1};
constexpr double kLog[] = {0.14936079, 0.19988763, 0.33333388};
constexpr double kTanh[] = {0.01645875, -0.05268414, 0.13320942, -0.3333296};

Value* polynomial(Emitter& e, Value* x, std::span<const double> terms) {
  Value* sum = e.number(x->getType(), terms[0]);
  for (const double term : terms.subspan(1)) sum = e.fma(sum, x, e.number(x->getType(), term));
  return sum;
}

// 2^n of a whole number that kRounder has been added to, with the exponent's bias; 0 below the least one.
Value* power_of_rounded(Emitter& e, Value* rounded) {
  Value* const whole = e.as_int(rounded);
  return e.as_float(e.b.CreateShl(whole, e.whole(whole->getType(), 23)));
}

// p * 2^n for |n| < 252, in two steps, so that the result may overflow or be subnormal.
Value* scale(Emitter& e, Value* p, Value* n) {
  Value* const half = e.b.CreateAShr(n, e.whole(n->getType(), 1));
  const auto power = [&](Value* exponent) {
    Value* const biased = e.b.CreateAdd(exponent, e.whole(n->getType(), 127));
    return e.as_float(e.b.CreateShl(biased, e.whole(n->getType(), 23)));
  };
  return e.b.CreateFMul(e.b.CreateFMul(p, power(half)), power(e.b.CreateSub(n, half)));
}

struct Rounded {
  Value* number;
  Value* whole;
};
// The nearest whole number, as a float and as an int; |x| < 2^22.
Rounded round(Emitter& e, Value* x) {
  Value* const rounder = e.number(x->getType(), kRounder);
  Value* const sum = e.b.CreateFAdd(x, rounder);
  Value* const bits = e.as_int(sum);
  return {e.b.CreateFSub(sum, rounder), e.b.CreateSub(bits, e.as_int(rounder))};
}

// NaN stays NaN.
Value* clamp(Emitter& e, Value* x, double low, double high) {
  llvm::Type* const type = x->getType();
  x = e.larger(e.number(type, low), x);
  return e.b.CreateSelect(e.b.CreateFCmpOGT(x, e.number(type, high)), e.number(type, high), x);
}

struct Logarithm {
  Value* exponent;  // a whole number, as a float
  Value* rest;      // log(x) - exponent * log(2); |rest| <= log(2) / 2
};
// Of positive normal numbers.
Logarithm logarithm(Emitter& e, Value* x) {
  Value* const bits = e.as_int(x);
  llvm::Type* const type = bits->getType();
  // The fraction from sqrt(1/2) to sqrt(2): what lies above belongs to the next exponent.
  constexpr std::uint32_t kRootHalf = 0x3f3504f3;
  Value* const shifted = e.b.CreateSub(bits, e.bits(type, kRootHalf));
  Value* const exponent = e.b.CreateAShr(shifted, e.whole(type, 23));
  Value* const fraction = e.as_float(e.b.CreateSub(bits, e.b.CreateShl(exponent, e.whole(type, 23))));
  Value* const one = e.number(x->getType(), 1);
  Value* const less = e.b.CreateFSub(fraction, one);
  Value* const t = e.b.CreateFDiv(less, e.b.CreateFAdd(fraction, one));
  // log(f) = 2 atanh(t) = l - t (l - 2 t^2 P(t^2)) where l = f - 1 = 2 t + l t.
  Value* const square = e.b.CreateFMul(t, t);
  Value* const more = e.b.CreateFMul(polynomial(e, square, kLog), e.b.CreateFAdd(square, square));
  Value* const rest = e.b.CreateFSub(less, e.b.CreateFMul(t, e.b.CreateFSub(less, more)));
  return {e.b.CreateSIToFP(exponent, x->getType()), rest};
}

// Brings subnormal numbers into the range of normal ones; `exponent` is what that adds.
Value* normalized(Emitter& e, Value* x, Value*& exponent) {
  llvm::Type* const type = x->getType();
  Value* const small = e.b.CreateFCmpOLT(x, e.number(type, 0x1p-126));
  exponent = e.b.CreateSelect(small, e.number(type, -24), e.number(type, 0));
  return e.b.CreateSelect(small, e.b.CreateFMul(x, e.number(type, 0x1p24)), x);
}

// What a logarithm is where x is not a positive number.
Value* logarithm_limits(Emitter& e, Value* x, Value* result) {
  llvm::Type* const type = x->getType();
  Value* const zero = e.number(type, 0);
  Value* const inf = e.infinity(type, false);
  result = e.b.CreateSelect(e.b.CreateFCmpOEQ(x, inf), inf, result);
  result = e.b.CreateSelect(e.b.CreateFCmpOEQ(x, zero), e.infinity(type, true), result);
  return e.b.CreateSelect(e.b.CreateFCmpULT(x, zero), llvm::ConstantFP::getNaN(type), result);
}

}  // namespace

Value* exp_of_weight(Emitter& e, Value* x) {
  llvm::Type* const type = x->getType();
  // Not in units of log 2 before the subtraction below: there a difference of 0 stays 0.
  x = e.larger(e.number(type, -127 * kLn2), x);
  Value* const to_base_2 = e.number(type, kLog2E);
  Value* const rounder = e.number(type, kRounder + 127);
  Value* const sum = e.fma(x, to_base_2, rounder);
  Value* const rest = e.fma(x, to_base_2, e.b.CreateFSub(rounder, sum));
  // A product, not a sum of bits: NaN stays NaN.
  return e.b.CreateFMul(polynomial(e, rest, kExp2Short), power_of_rounded(e, sum));
}

Value* exp2(Emitter& e, Value* x) {
  x = clamp(e, x, -160, 130);
  const Rounded n = round(e, x);
  return scale(e, polynomial(e, e.b.CreateFSub(x, n.number), kExp2), n.whole);
}

Value* exp(Emitter& e, Value* x) {
  llvm::Type* const type = x->getType();
  x = clamp(e, x, -110, 90);
  const Rounded n = round(e, e.b.CreateFMul(x, e.number(type, kLog2E)));
  Value* rest = e.fma(n.number, e.number(type, -kLn2High), x);
  rest = e.fma(n.number, e.number(type, -kLn2Low), rest);
  // e^r by the series of 2^(r / log 2): the same polynomial in another unit.
  std::vector<double> terms(std::begin(kExp2), std::end(kExp2));
  double power = 1;
  for (std::size_t i = terms.size(); i-- > 0; power *= kLog2E) terms[i] *= power;
  terms[terms.size() - 2] = 1;
  return scale(e, polynomial(e, rest, terms), n.whole);
}

Value* log2(Emitter& e, Value* x) {
  Value* shift = nullptr;
  const Logarithm l = logarithm(e, normalized(e, x, shift));
  Value* const result = e.fma(l.rest, e.number(x->getType(), kLog2E), e.b.CreateFAdd(l.exponent, shift));
  return logarithm_limits(e, x, result);
}

Value* log(Emitter& e, Value* x) {
  llvm::Type* const type = x->getType();
  Value* shift = nullptr;
  const Logarithm l = logarithm(e, normalized(e, x, shift));
  Value* const exponent = e.b.CreateFAdd(l.exponent, shift);
  Value* const low = e.fma(exponent, e.number(type, kLn2Low), l.rest);
  return logarithm_limits(e, x, e.fma(exponent, e.number(type, kLn2High), low));
}

Value* tanh(Emitter& e, Value* x) {
  llvm::Type* const type = x->getType();
  Value* const square = e.b.CreateFMul(x, x);
  Value* const small = e.fma(e.b.CreateFMul(polynomial(e, square, kTanh), square), x, x);
  // 1 - 2 / (e^2|x| + 1), which loses no digits where x is not small. Beyond 10 it is 1.
  Value* const magnitude = e.unary(llvm::Intrinsic::fabs, x);
  Value* const within = clamp(e, magnitude, -10, 10);
  Value* const power = exp_of_weight(e, e.b.CreateFAdd(within, within));
  Value* const one = e.number(type, 1);
  Value* const share = e.b.CreateFDiv(e.number(type, 2), e.b.CreateFAdd(power, one));
  Value* const large = e.b.CreateBinaryIntrinsic(llvm::Intrinsic::copysign, e.b.CreateFSub(one, share), x);
  return e.b.CreateSelect(e.b.CreateFCmpOLT(magnitude, e.number(type, 0.55)), small, large);
}

Value* sigmoid(Emitter& e, Value* x) {
  // t / (1 + t) or 1 / (1 + t) where t = e^-|x|, which does not overflow.
  Value* const t = exp(e, e.b.CreateFNeg(e.unary(llvm::Intrinsic::fabs, x)));
  Value* const one = e.number(x->getType(), 1);
  Value* const below = e.b.CreateFCmpOLT(x, e.number(x->getType(), 0));
  return e.b.CreateFDiv(e.b.CreateSelect(below, t, one), e.b.CreateFAdd(one, t));
}

Value* library_function(Emitter& e, const char* name, Value* x, Value* y) {
  Value* const memory = e.scratch(3);
  const std::int64_t other = kLanes, result = 2 * kLanes;
  e.store(e.as_vector(x), memory);
  if (y != nullptr) e.store(e.as_vector(y), e.at(e.f32, memory, other));
  llvm::FunctionType* const type = llvm::FunctionType::get(e.b.getVoidTy(), {e.ptr, e.ptr, e.ptr}, false);
  const llvm::FunctionCallee callee = e.module().getOrInsertFunction(name, type);
  e.b.CreateCall(callee, {memory, e.at(e.f32, memory, other), e.at(e.f32, memory, result)});
  return e.load(e.like(x, e.f32), e.at(e.f32, memory, result));
}

}  // namespace vicinal::cpu
