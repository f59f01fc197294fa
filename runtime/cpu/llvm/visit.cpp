// A tile of keys: scores, their softmax, and the values that it weighs.
#include "runtime/cpu/llvm/kernel.h"
#include "runtime/cpu/llvm/products.h"
#include "runtime/cpu/llvm/stage.h"

namespace vicinal::cpu {
namespace {

class Visit : Stage {
 public:
  using Stage::Stage;

  void run() {
    const emit::CpuKernelOptions& o = kernel_.options;
    llvm::Function* const pack_keys =
        emit_pack_rows(e_, "pack_keys", o.dtype, layout_.head_dim, layout_.head_dim);
    const bool alike = layout_.head_dim == layout_.value_dim && layout_.channels == layout_.value_dim;
    llvm::Function* const inverse_norms = kernel_.key_l2norm ? emit_inverse_norms(e_, layout_) : nullptr;
    llvm::Function* const pack_values =
        alike ? pack_keys : emit_pack_rows(e_, "pack_values", o.dtype, layout_.value_dim, layout_.channels);
    llvm::Function* const score_block = emit_score_block(e_, layout_);
    llvm::Function* const add_values =
        o.exact ? emit_exact_values(e_, layout_) : emit_value_block(e_, layout_);
    llvm::Function* const weights = softmax_ ? emit_weights(e_, layout_, o.exact) : nullptr;
    std::vector<std::pair<KeyTileKind, llvm::Function*>> scores;
    const auto add = [&](KeyTileKind kind) {
      scores.emplace_back(kind, emit_scores(e_, layout_, kernel_, kind));
    };
    add(kFullTile);
    if (kernel_.grid.has_mask || kernel_.windowed()) add(kPartialTile);
    if (kernel_.context) {
      add(kFullContext);
      if (kernel_.context->has_mask) add(kPartialContext);
    }

    llvm::Function* const f = e_.function(kVisitSymbol, e_.b.getVoidTy(), {e_.ptr, e_.ptr}, true);
    query_tile_ = f->getArg(0);
    Value* const key_tile = f->getArg(1);
    const auto key_member = [&](std::size_t byte, llvm::Type* type) {
      return member(e_, key_tile, byte, type);
    };
    Value* const keys = key_member(offsetof(KeyTile, count), e_.i64);
    Value* const direct = key_member(offsetof(KeyTile, direct), e_.i64);
    Value* const queries = query_member(offsetof(QueryTile, count), e_.i64);

    // Where rows are read: from the tensor, or packed first.
    const auto rows = [&](std::int64_t bit, std::size_t data, std::size_t dim, std::size_t row,
                          std::size_t step, llvm::Function* pack, std::int64_t to, std::int64_t width) {
      Value* const in_place = e_.b.CreateICmpNE(e_.b.CreateAnd(direct, e_.index(bit)), e_.index(0));
      Value* const tensor = key_member(data, e_.ptr);
      Value* const packed = workspace(to);
      e_.when(e_.b.CreateNot(in_place), [&] {
        e_.b.CreateCall(pack, {tensor, key_member(dim, e_.i64), key_member(row, e_.ptr), packed, keys});
      });
      return std::pair(e_.b.CreateSelect(in_place, tensor, packed),
                       e_.b.CreateSelect(in_place, key_member(step, e_.i64), e_.index(width)));
    };
    const auto [k, k_step] =
        rows(kDirectKeys, offsetof(KeyTile, k), offsetof(KeyTile, k_dim), offsetof(KeyTile, k_row),
             offsetof(KeyTile, k_step), pack_keys, layout_.keys, layout_.head_dim);
    const auto [v, v_step] =
        rows(kDirectValues, offsetof(KeyTile, v), offsetof(KeyTile, v_dim), offsetof(KeyTile, v_row),
             offsetof(KeyTile, v_step), pack_values, layout_.values, layout_.channels);

    if (kernel_.key_l2norm) e_.b.CreateCall(inverse_norms, {k, workspace(layout_.norms), keys});

    Value* const kind = key_member(offsetof(KeyTile, kind), e_.i64);
    e_.loop(e_.index(0), queries, layout_.block.unit, {}, [&](Value* unit, const Values&) {
      const auto [first, count] = keys_of_unit(key_tile, unit, kind, keys);
      e_.when(e_.b.CreateICmpSGT(count, e_.index(0)), [&, first = first, count = count] {
        Value* const from = e_.at(e_.f32, k, e_.b.CreateMul(first, k_step));
        score_blocks(score_block, unit, from, k_step, count);
        Value* const end = least(e_.b.CreateAdd(unit, e_.index(layout_.block.unit)), queries);
        e_.loop(unit, end, kLanes, {}, [&](Value* query, const Values&) {
          choose(kind, scores, {query_tile_, key_tile, query, first, count});
          if (softmax_) e_.b.CreateCall(weights, {query_tile_, query, count});
          return Values{};
        });
        Value* const values = e_.at(e_.f32, v, e_.b.CreateMul(first, v_step));
        if (o.exact)
          e_.b.CreateCall(add_values,
                          {workspace(layout_.scores, unit), values, v_step,
                           workspace(layout_.output, e_.b.CreateMul(unit, e_.index(layout_.channels))),
                           workspace(layout_.rescale, unit), count, e_.b.CreateSub(end, unit)});
        else
          value_blocks(add_values, key_tile, values, v_step, count, unit, end);
      });
      return Values{};
    });
    e_.b.CreateRetVoid();
  }

 private:
  // Calls one of the functions, by the number that `kind` is.
  void choose(Value* kind, const std::vector<std::pair<KeyTileKind, llvm::Function*>>& functions,
              const Values& arguments) {
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

  // Those of the tile that some query of the unit sees: the first, and how many.
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
    Value* const first = limit(0, none);
    return {first, e_.b.CreateSub(limit(1, keys), first)};
  }

  // Products of a unit, a block of queries after another; keys stream through.
  void score_blocks(llvm::Function* score_block, Value* unit, Value* k, Value* k_step, Value* keys) {
    const std::int64_t at_once = kLanes * layout_.block.qk_vectors;
    e_.loop(e_.index(0), e_.index(layout_.block.unit), at_once, {}, [&](Value* block, const Values&) {
      Value* const query = e_.b.CreateAdd(unit, block);
      Value* const to = workspace(layout_.scores, query);
      Value* const from = workspace(layout_.queries, query);
      e_.loop(e_.index(0), keys, layout_.block.qk_keys, {}, [&](Value* n, const Values&) {
        e_.b.CreateCall(score_block, {e_.at(e_.f32, k, e_.b.CreateMul(n, k_step)), k_step,
                                      e_.b.CreateSub(e_.b.CreateSub(keys, e_.index(1)), n), from,
                                      e_.at(e_.f32, to, e_.b.CreateMul(n, e_.index(layout_.block.tile_q)))});
        return Values{};
      });
      return Values{};
    });
  }

  // Blocks of queries; each fetches as many lines of the next tile as there are keys, first of its keys and
  // then of its values, so that the whole touches the next tile once.
  void value_blocks(llvm::Function* value_block, Value* key_tile, Value* v, Value* v_step, Value* keys,
                    Value* first, Value* end) {
    Value* const next_k = member(e_, key_tile, offsetof(KeyTile, next_k), e_.ptr);
    Value* const next_v = member(e_, key_tile, offsetof(KeyTile, next_v), e_.ptr);
    Value* const line = e_.b.CreateMul(keys, e_.index(64));
    Value* const k_bytes = e_.b.CreateMul(keys, e_.index(4 * layout_.head_dim));
    e_.loop(first, end, layout_.block.pv_queries, {}, [&](Value* query, const Values&) {
      Value* const number = e_.small_quotient(query, layout_.block.pv_queries);
      Value* const offset = e_.b.CreateMul(number, line);
      Value* const of_keys = e_.b.CreateICmpSLT(offset, k_bytes);
      Value* const next = e_.b.CreateSelect(of_keys, e_.at(e_.i8, next_k, offset),
                                            e_.at(e_.i8, next_v, e_.b.CreateSub(offset, k_bytes)));
      e_.b.CreateCall(value_block,
                      {workspace(layout_.scores, query), v, v_step,
                       workspace(layout_.output, e_.b.CreateMul(query, e_.index(layout_.channels))),
                       workspace(layout_.rescale, query), keys, next});
      return Values{};
    });
  }
};

}  // namespace

void emit_visit(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel) {
  Visit(e, layout, kernel).run();
}

}  // namespace vicinal::cpu
