#include "runtime/cpu/llvm/elements.h"

namespace vicinal::cpu {
namespace {

// runtime/files/half.h in vectors, for processors that do not convert by themselves.

Value* from_f16(Emitter& e, Value* half) {
  Value* const bits = e.b.CreateZExt(half, e.like(half, e.i32));
  llvm::Type* const type = bits->getType();
  Value* const sign = e.b.CreateShl(e.b.CreateAnd(bits, e.whole(type, 0x8000)), e.whole(type, 16));
  Value* const magnitude = e.b.CreateAnd(bits, e.whole(type, 0x7fff));
  Value* const fraction = e.b.CreateAnd(bits, e.whole(type, 0x3ff));
  Value* const small = e.as_int(e.b.CreateFMul(e.b.CreateUIToFP(fraction, e.like(half, e.f32)),
                                               e.number(e.like(half, e.f32), 0x1p-24)));
  Value* const normal = e.b.CreateAdd(e.b.CreateShl(magnitude, e.whole(type, 13)), e.whole(type, 112 << 23));
  Value* const huge = e.b.CreateAdd(normal, e.whole(type, 112 << 23));  // inf and NaN
  Value* result = e.b.CreateSelect(e.b.CreateICmpULT(magnitude, e.whole(type, 0x400)), small, normal);
  result = e.b.CreateSelect(e.b.CreateICmpUGE(magnitude, e.whole(type, 0x7c00)), huge, result);
  return e.as_float(e.b.CreateOr(sign, result));
}

Value* to_f16(Emitter& e, Value* x) {
  Value* const bits = e.as_int(x);
  llvm::Type* const type = bits->getType();
  Value* const magnitude = e.b.CreateAnd(bits, e.whole(type, 0x7fffffff));
  Value* const sign = e.b.CreateAnd(e.b.CreateLShr(bits, e.whole(type, 16)), e.whole(type, 0x8000));
  Value* const odd = e.b.CreateAnd(e.b.CreateLShr(magnitude, e.whole(type, 13)), e.whole(type, 1));
  Value* const rounded = e.b.CreateAdd(e.b.CreateAdd(magnitude, e.whole(type, 0xfff - (112 << 23))), odd);
  Value* const normal = e.b.CreateLShr(rounded, e.whole(type, 13));
  Value* const half = e.number(x->getType(), 0.5);
  Value* const small = e.b.CreateSub(e.as_int(e.b.CreateFAdd(e.as_float(magnitude), half)), e.as_int(half));
  Value* const payload = e.b.CreateAnd(e.b.CreateLShr(magnitude, e.whole(type, 13)), e.whole(type, 0x3ff));
  Value* const nan = e.b.CreateOr(payload, e.whole(type, 0x7e00));
  Value* result = e.b.CreateSelect(e.b.CreateICmpULT(magnitude, e.whole(type, 0x38800000)), small, normal);
  result = e.b.CreateSelect(e.b.CreateICmpUGE(magnitude, e.whole(type, 0x477ff000)), e.whole(type, 0x7c00),
                            result);
  result = e.b.CreateSelect(e.b.CreateICmpUGT(magnitude, e.whole(type, 0x7f800000)), nan, result);
  return e.b.CreateTrunc(e.b.CreateOr(sign, result), e.like(x, e.i16));
}

Value* to_bf16(Emitter& e, Value* x) {
  Value* const bits = e.as_int(x);
  llvm::Type* const type = bits->getType();
  Value* const high = e.b.CreateLShr(bits, e.whole(type, 16));
  Value* const odd = e.b.CreateAnd(high, e.whole(type, 1));
  Value* const rounded = e.b.CreateAdd(e.b.CreateAdd(bits, e.whole(type, 0x7fff)), odd);
  Value* const quiet = e.b.CreateOr(high, e.whole(type, 0x40));
  Value* const result =
      e.b.CreateSelect(e.b.CreateFCmpUNO(x, x), quiet, e.b.CreateLShr(rounded, e.whole(type, 16)));
  return e.b.CreateTrunc(result, e.like(x, e.i16));
}

Value* as_real(Emitter& e, DType dtype, Value* raw) {
  switch (dtype) {
    case DType::f16:
      if (!e.target().half) return from_f16(e, raw);
      return e.b.CreateFPExt(e.b.CreateBitCast(raw, e.like(raw, e.b.getHalfTy())), e.like(raw, e.f32));
    case DType::bf16: {
      Value* const wide = e.b.CreateZExt(raw, e.like(raw, e.i32));
      return e.as_float(e.b.CreateShl(wide, e.whole(wide->getType(), 16)));
    }
    case DType::f64: return e.b.CreateFPTrunc(raw, e.like(raw, e.f32));
    default: return raw;
  }
}

}  // namespace

llvm::Type* memory_type(Emitter& e, DType dtype) {
  switch (dtype) {
    case DType::f32: return e.f32;
    case DType::f64: return e.f64;
    case DType::f16:
    case DType::bf16:
    case DType::i16:
    case DType::u16: return e.i16;
    case DType::i8:
    case DType::u8:
    case DType::boolean: return e.i8;
    case DType::i32: return e.i32;
    case DType::i64: return e.i64;
  }
  return nullptr;
}

Value* from_memory(Emitter& e, DType dtype, ir::Type type, Value* raw) {
  if (type == ir::Type::real) return as_real(e, dtype, raw);
  if (type == ir::Type::boolean) return e.b.CreateICmpNE(raw, e.whole(raw->getType(), 0));
  const bool is_unsigned = dtype == DType::u8 || dtype == DType::u16;
  return is_unsigned ? e.b.CreateZExtOrTrunc(raw, e.like(raw, e.i32))
                     : e.b.CreateSExtOrTrunc(raw, e.like(raw, e.i32));
}

Value* to_memory(Emitter& e, DType dtype, Value* x) {
  if (dtype == DType::bf16) return to_bf16(e, x);
  if (dtype != DType::f16) return x;
  if (!e.target().half) return to_f16(e, x);
  return e.b.CreateBitCast(e.b.CreateFPTrunc(x, e.like(x, e.b.getHalfTy())), e.like(x, e.i16));
}

Value* load_floats(Emitter& e, DType dtype, Value* address, int lanes) {
  return from_memory(e, dtype, ir::Type::real, e.load(e.vector(memory_type(e, dtype), lanes), address));
}

}  // namespace vicinal::cpu
