// What the parts of a kernel share while they are emitted.
#pragma once

#include <llvm/IR/Intrinsics.h>

#include "runtime/cpu/llvm/softmax.h"

namespace vicinal::cpu {

class Stage {
 public:
  Stage(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel)
      : e_(e), layout_(layout), kernel_(kernel), softmax_(kernel.normalize == ir::Normalize::softmax) {}

 protected:
  Value* query_member(std::size_t byte, llvm::Type* type) { return member(e_, query_tile_, byte, type); }
  Value* workspace(std::int64_t offset) {
    return e_.at(e_.f32, query_member(offsetof(QueryTile, workspace), e_.ptr), offset);
  }
  Value* workspace(std::int64_t offset, Value* element) { return e_.at(e_.f32, workspace(offset), element); }
  // body(first) for sixteen queries at a time, as many as hold a task's; all of a unit's, if one of them
  // does. There is no division in it, which costs more to compile than a loop.
  void each_group(std::int64_t unit, const std::function<void(Value*)>& body) {
    Value* const count = query_member(offsetof(QueryTile, count), e_.i64);
    e_.loop(e_.index(0), count, unit, {}, [&](Value* first, const Values&) {
      if (unit == kLanes) {
        body(first);
      } else {
        Value* const end = e_.b.CreateAdd(first, e_.index(unit));
        e_.loop(first, end, kLanes, {}, [&](Value* query, const Values&) {
          body(query);
          return Values{};
        });
      }
      return Values{};
    });
  }
  const passes::ScoreForm& form() const { return kernel_.grid.form; }

  Value* least(Value* x, Value* y) { return e_.b.CreateBinaryIntrinsic(llvm::Intrinsic::smin, x, y); }
  Value* most(Value* x, Value* y) { return e_.b.CreateBinaryIntrinsic(llvm::Intrinsic::smax, x, y); }

  Value* sink(Expressions& expressions) {
    return expressions.uniform(kernel_.uniforms.size(), ir::Type::real);
  }

  // One of the two limits that are kept for a unit of queries: the first key that one of them sees, or the
  // end.
  Value* limit_of(Value* unit, std::int64_t which) {
    return e_.at(e_.i32, workspace(layout_.limits), e_.b.CreateAdd(unit, e_.index(which)));
  }

  Emitter& e_;
  const KernelLayout& layout_;
  const emit::CpuKernel& kernel_;
  const bool softmax_;
  Value* query_tile_ = nullptr;  // of the function at hand
};

}  // namespace vicinal::cpu
