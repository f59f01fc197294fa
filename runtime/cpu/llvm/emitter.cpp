#include "runtime/cpu/llvm/emitter.h"

#include <llvm/IR/Intrinsics.h>

#include <limits>

namespace vicinal::cpu {

using llvm::ConstantFP;
using llvm::ConstantInt;

Emitter::Emitter(llvm::Module& module, const CpuTarget& target)
    : b(module.getContext()),
      f32(b.getFloatTy()),
      f64(b.getDoubleTy()),
      i1(b.getInt1Ty()),
      i8(b.getInt8Ty()),
      i16(b.getInt16Ty()),
      i32(b.getInt32Ty()),
      i64(b.getInt64Ty()),
      ptr(b.getPtrTy()),
      module_(module),
      target_(target) {}

llvm::Type* Emitter::vector(llvm::Type* element, int lanes) const {
  return llvm::FixedVectorType::get(element, static_cast<unsigned>(lanes));
}

llvm::Type* Emitter::like(const Value* x, llvm::Type* element) const {
  const auto* shape = llvm::dyn_cast<llvm::FixedVectorType>(x->getType());
  return shape == nullptr ? element : llvm::FixedVectorType::get(element, shape->getNumElements());
}

Value* Emitter::number(llvm::Type* type, double x) const {
  return ConstantFP::get(type, x);
}
Value* Emitter::whole(llvm::Type* type, std::int64_t x) const {
  return ConstantInt::get(type, static_cast<std::uint64_t>(x), true);
}
Value* Emitter::infinity(llvm::Type* type, bool negative) const {
  return ConstantFP::getInfinity(type, negative);
}

Value* Emitter::lane_numbers() const {
  std::vector<std::uint32_t> lanes;
  for (std::uint32_t i = 0; i < kLanes; ++i) lanes.push_back(i);
  return llvm::ConstantDataVector::get(module_.getContext(), lanes);
}

Value* Emitter::splat(Value* scalar, int lanes) {
  return b.CreateVectorSplat(static_cast<unsigned>(lanes), scalar);
}

Value* Emitter::at(llvm::Type* element, Value* base, Value* offset) {
  return b.CreateInBoundsGEP(element, base, offset);
}
Value* Emitter::at(llvm::Type* element, Value* base, std::int64_t offset) {
  return offset == 0 ? base : at(element, base, index(offset));
}
// Tensors are aligned as their callers like.
Value* Emitter::load(llvm::Type* type, Value* address) {
  return b.CreateAlignedLoad(type, address, llvm::Align(1));
}
void Emitter::store(Value* value, Value* address) {
  b.CreateAlignedStore(value, address, llvm::Align(1));
}

Value* Emitter::scratch(int count) {
  llvm::BasicBlock& entry = b.GetInsertBlock()->getParent()->getEntryBlock();
  llvm::IRBuilder<> at_entry(&entry, entry.begin());
  return at_entry.CreateAlloca(vector(f32), at_entry.getInt32(static_cast<std::uint32_t>(count)));
}

Value* Emitter::small_quotient(Value* x, std::int64_t divisor) {
  constexpr std::int64_t kBits = 16;
  const std::int64_t inverse = ((std::int64_t{1} << kBits) + divisor - 1) / divisor;
  return b.CreateLShr(b.CreateMul(x, index(inverse)), static_cast<std::uint64_t>(kBits));
}

Value* Emitter::fma(Value* x, Value* y, Value* z) {
  if (!target_.fma) return b.CreateFAdd(b.CreateFMul(x, y), z);
  return b.CreateIntrinsic(llvm::Intrinsic::fma, {x->getType()}, {x, y, z});
}
Value* Emitter::unary(llvm::Intrinsic::ID id, Value* x) {
  return b.CreateUnaryIntrinsic(id, x);
}
Value* Emitter::larger(Value* x, Value* y) {
  return b.CreateSelect(b.CreateFCmpOGT(x, y), x, y);
}

Value* Emitter::table(const std::string& name, llvm::Constant* content) {
  auto* const table = llvm::cast<llvm::GlobalVariable>(module_.getOrInsertGlobal(name, content->getType()));
  table->setInitializer(content);
  table->setConstant(true);
  table->setLinkage(llvm::GlobalValue::PrivateLinkage);
  table->setAlignment(llvm::Align(64));
  return table;
}

void Emitter::prefetch(Value* address) {
  b.CreateIntrinsic(llvm::Intrinsic::prefetch, {ptr}, {address, b.getInt32(0), b.getInt32(2), b.getInt32(1)});
}

Values Emitter::loop(Value* first, Value* end, std::int64_t step, Values carried, const Body& body) {
  llvm::Function* const f = b.GetInsertBlock()->getParent();
  llvm::BasicBlock* const before = b.GetInsertBlock();
  llvm::BasicBlock* const block = llvm::BasicBlock::Create(b.getContext(), "loop", f);
  llvm::BasicBlock* const after = llvm::BasicBlock::Create(b.getContext(), "after", f);
  b.CreateBr(block);
  b.SetInsertPoint(block);
  llvm::PHINode* const i = b.CreatePHI(first->getType(), 2);
  i->addIncoming(first, before);
  std::vector<llvm::PHINode*> phis;
  Values now;
  for (Value* x : carried) {
    phis.push_back(b.CreatePHI(x->getType(), 2));
    phis.back()->addIncoming(x, before);
    now.push_back(phis.back());
  }
  const Values next = body(i, now);
  Value* const following = b.CreateNSWAdd(i, whole(first->getType(), step));
  i->addIncoming(following, b.GetInsertBlock());
  for (std::size_t n = 0; n < phis.size(); ++n) phis[n]->addIncoming(next[n], b.GetInsertBlock());
  b.CreateCondBr(b.CreateICmpSLT(following, end), block, after);
  b.SetInsertPoint(after);
  return next;
}

Values Emitter::loop_if_any(Value* first, Value* end, std::int64_t step, Values carried, const Body& body) {
  Values result;
  llvm::BasicBlock* const before = b.GetInsertBlock();
  Values inside;
  llvm::BasicBlock* last = nullptr;
  llvm::Function* const f = before->getParent();
  llvm::BasicBlock* const some = llvm::BasicBlock::Create(b.getContext(), "some", f);
  llvm::BasicBlock* const done = llvm::BasicBlock::Create(b.getContext(), "done", f);
  b.CreateCondBr(b.CreateICmpSLT(first, end), some, done);
  b.SetInsertPoint(some);
  inside = loop(first, end, step, carried, body);
  last = b.GetInsertBlock();
  b.CreateBr(done);
  b.SetInsertPoint(done);
  for (std::size_t n = 0; n < carried.size(); ++n) {
    llvm::PHINode* const phi = b.CreatePHI(carried[n]->getType(), 2);
    phi->addIncoming(carried[n], before);
    phi->addIncoming(inside[n], last);
    result.push_back(phi);
  }
  return result;
}

void Emitter::when(Value* condition, const std::function<void()>& then,
                   const std::function<void()>& otherwise) {
  llvm::Function* const f = b.GetInsertBlock()->getParent();
  llvm::BasicBlock* const yes = llvm::BasicBlock::Create(b.getContext(), "yes", f);
  llvm::BasicBlock* const no = llvm::BasicBlock::Create(b.getContext(), "no", f);
  llvm::BasicBlock* const after = otherwise ? llvm::BasicBlock::Create(b.getContext(), "after", f) : no;
  b.CreateCondBr(condition, yes, no);
  b.SetInsertPoint(yes);
  then();
  b.CreateBr(after);
  if (otherwise) {
    b.SetInsertPoint(no);
    otherwise();
    b.CreateBr(after);
  }
  b.SetInsertPoint(after);
}

llvm::Function* Emitter::function(const std::string& name, llvm::Type* result,
                                  const std::vector<llvm::Type*>& parameters, bool exported) {
  auto* const f = llvm::Function::Create(
      llvm::FunctionType::get(result, parameters, false),
      exported ? llvm::Function::ExternalLinkage : llvm::Function::InternalLinkage, name, module_);
  f->addFnAttr(llvm::Attribute::NoUnwind);
  f->addFnAttr("prefer-vector-width", std::to_string(target_.vector_bits));
  if (!exported) f->addFnAttr(llvm::Attribute::NoInline);
  for (llvm::Argument& argument : f->args())
    if (argument.getType()->isPointerTy()) argument.addAttr(llvm::Attribute::NoAlias);
  b.SetInsertPoint(llvm::BasicBlock::Create(b.getContext(), "entry", f));
  return f;
}

}  // namespace vicinal::cpu
