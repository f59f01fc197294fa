// What the parts of a kernel share while they are emitted.
#pragma once

#include <llvm/IR/Intrinsics.h>

#include "runtime/cpu/llvm/pair_places.h"
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
  // Of a query and those after it: its row, or its column.
  Value* output_of(Value* query) {
    return workspace(layout_.output,
                     layout_.block.matrices ? query : e_.b.CreateMul(query, e_.index(layout_.channels)));
  }
  // As a run wrote it.
  Value* lse_of(Value* query) {
    Value* const rows = query_member(offsetof(QueryTile, lse_row), e_.ptr);
    Value* const lse = query_member(offsetof(QueryTile, lse), e_.ptr);
    return e_.load(e_.f32, e_.at(e_.f32, lse, e_.load(e_.i64, e_.at(e_.i64, rows, query))));
  }
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

  // Of every unit the keys that its queries see, as the mask's limits or the window have it.
  void find_limits();

  // One of the two limits that are kept for a unit of queries: the first key that one of them sees, or the
  // end.
  Value* limit_of(Value* unit, std::int64_t which) {
    return e_.at(e_.i32, workspace(layout_.limits), e_.b.CreateAdd(unit, e_.index(which)));
  }

  // What brings rows of keys and values into shape where they do not lie as products take them.
  struct Packers {
    llvm::Function *keys, *values;
  };
  Packers emit_packers();

  // A tile of keys, and where its rows are read: in the tensors, or packed first. Steps are in words; values
  // of pairs of keys are one row.
  struct KeyRows {
    Value *key_tile, *kind, *keys;
    Value *k, *k_step, *v, *v_step;
  };
  // Starts the function that visits one.
  KeyRows start_visit(const Packers& packers);

  // One function for every kind of tile that there is.
  using ByKind = std::vector<std::pair<KeyTileKind, llvm::Function*>>;
  ByKind by_kind(const std::function<llvm::Function*(KeyTileKind)>& emit) const {
    ByKind functions;
    const auto add = [&](KeyTileKind kind) { functions.emplace_back(kind, emit(kind)); };
    add(kFullTile);
    if (kernel_.grid.has_mask || kernel_.windowed()) add(kPartialTile);
    if (kernel_.context) {
      add(kFullContext);
      if (kernel_.context->has_mask) add(kPartialContext);
    }
    return functions;
  }

  // Calls one of the functions, by the number that `kind` is.
  void choose(Value* kind, const ByKind& functions, const Values& arguments) {
    llvm::Function* const f = e_.b.GetInsertBlock()->getParent();
    llvm::BasicBlock* const after = llvm::BasicBlock::Create(e_.b.getContext(), "chosen", f);
    llvm::BasicBlock* const other = llvm::BasicBlock::Create(e_.b.getContext(), "other", f);
    llvm::SwitchInst* const choice = e_.b.CreateSwitch(kind, other);
    for (const auto& [number, function] : functions) {
      llvm::BasicBlock* const block = llvm::BasicBlock::Create(e_.b.getContext(), "choice", f);
      choice->addCase(e_.b.getInt64(static_cast<std::uint64_t>(number)), block);
      e_.b.SetInsertPoint(block);
      e_.b.CreateCall(function, arguments);
      e_.b.CreateBr(after);
    }
    e_.b.SetInsertPoint(other);
    e_.b.CreateUnreachable();
    e_.b.SetInsertPoint(after);
  }

  // Those of the tile that some query of the unit sees: the first, and how many. No pair is taken apart: the
  // mask leaves out what is one too many.
  std::pair<Value*, Value*> keys_of_unit(Value* key_tile, Value* unit, Value* kind, Value* keys) {
    Value* const none = e_.index(0);
    if (!kernel_.has_limits()) return {none, keys};
    const bool window = !kernel_.declarations().axes.empty();
    Value* const base =
        member(e_, key_tile, window ? offsetof(KeyTile, first_in_group) : offsetof(KeyTile, first), e_.i64);
    Value* const partial = e_.b.CreateICmpEQ(kind, e_.index(kPartialTile));
    const auto limit = [&](std::int64_t which, Value* otherwise) {
      Value* const inside =
          e_.b.CreateSub(e_.b.CreateSExt(e_.load(e_.i32, limit_of(unit, which)), e_.i64), base);
      return e_.b.CreateSelect(partial, least(most(inside, none), keys), otherwise);
    };
    Value* const first = e_.b.CreateAnd(limit(0, none), e_.index(-layout_.block.key_step));
    return {first, e_.b.CreateSub(limit(1, keys), first)};
  }

  // Products of a unit's packed queries with rows, a block of queries after another; rows stream through.
  void score_blocks(llvm::Function* score_block, std::int64_t packed, std::int64_t products, Value* unit,
                    Value* k, Value* k_step, Value* keys) {
    const std::int64_t at_once = kLanes * layout_.block.qk_vectors;
    e_.loop(e_.index(0), e_.index(layout_.block.unit), at_once, {}, [&](Value* block, const Values&) {
      Value* const query = e_.b.CreateAdd(unit, block);
      Value* const to = workspace(products, block);
      Value* const from = workspace(packed, query);
      e_.loop(e_.index(0), keys, layout_.block.qk_keys, {}, [&](Value* n, const Values&) {
        e_.b.CreateCall(score_block, {e_.at(e_.f32, k, e_.b.CreateMul(n, k_step)), k_step,
                                      e_.b.CreateSub(e_.b.CreateSub(keys, e_.index(1)), n), from,
                                      e_.at(e_.f32, to, e_.b.CreateMul(n, e_.index(layout_.block.unit)))});
        return Values{};
      });
      return Values{};
    });
  }

  // The first key that each of sixteen queries sees, and the end.
  std::pair<Value*, Value*> limits_of(Expressions& expressions, Value* query);

  Emitter& e_;
  const KernelLayout& layout_;
  const emit::CpuKernel& kernel_;
  const bool softmax_;
  Value* query_tile_ = nullptr;  // of the function at hand
};

}  // namespace vicinal::cpu
