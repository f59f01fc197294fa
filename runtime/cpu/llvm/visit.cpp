// A tile of keys: scores, their softmax, and the values that it weighs.
#include "runtime/cpu/llvm/kernel.h"
#include "runtime/cpu/llvm/matrices.h"
#include "runtime/cpu/llvm/products.h"
#include "runtime/cpu/llvm/stage.h"

namespace vicinal::cpu {
namespace {

class Visit : Stage {
 public:
  using Stage::Stage;

  void run() {
    const emit::CpuKernelOptions& o = kernel_.options;
    const Packers packers = emit_packers();
    llvm::Function* const inverse_norms = kernel_.key_l2norm ? emit_inverse_norms(e_, layout_) : nullptr;
    const bool matrices = layout_.block.matrices;
    llvm::Function* const score_block = matrices
                                            ? emit_score_matrices(e_, layout_)
                                            : emit_score_block(e_, layout_, "score_block", layout_.head_dim);
    llvm::Function* const add_values = o.exact    ? emit_exact_values(e_, layout_)
                                       : matrices ? emit_value_matrices(e_, layout_)
                                                  : emit_value_block(e_, layout_);
    llvm::Function* const weights = softmax_                      ? emit_weights(e_, layout_, o.exact)
                                    : layout_.block.per_word == 2 ? emit_weight_pairs(e_, layout_)
                                                                  : nullptr;
    const ByKind scores = by_kind([&](KeyTileKind kind) { return emit_scores(e_, layout_, kernel_, kind); });

    const auto [key_tile, kind, keys, k, k_step, v, v_step] = start_visit(packers);
    Value* const queries = query_member(offsetof(QueryTile, count), e_.i64);
    if (kernel_.key_l2norm) e_.b.CreateCall(inverse_norms, {k, workspace(layout_.norms), keys});

    e_.loop(e_.index(0), queries, layout_.block.unit, {}, [&](Value* unit, const Values&) {
      const auto [first, count] = keys_of_unit(key_tile, unit, kind, keys);
      e_.when(e_.b.CreateICmpSGT(count, e_.index(0)), [&] {
        Value* const from = e_.at(e_.f32, k, e_.b.CreateMul(first, k_step));
        score_blocks(score_block, layout_.queries, layout_.scores, unit, from, k_step, count);
        Value* const end = least(e_.b.CreateAdd(unit, e_.index(layout_.block.unit)), queries);
        e_.loop(unit, end, kLanes, {}, [&](Value* query, const Values&) {
          Value* const column = e_.b.CreateSub(query, unit);
          choose(kind, scores, {query_tile_, key_tile, query, column, first, count});
          if (weights != nullptr) e_.b.CreateCall(weights, {query_tile_, query, column, count});
          return Values{};
        });
        Value* const values = e_.at(e_.f32, v, e_.b.CreateMul(in_words(first), v_step));
        if (o.exact)
          e_.b.CreateCall(add_values, {workspace(layout_.scores), values, v_step, output_of(unit),
                                       workspace(layout_.rescale, unit), count, e_.b.CreateSub(end, unit)});
        else
          value_blocks(add_values, key_tile, values, v_step, count, unit, end);
      });
      return Values{};
    });
    e_.b.CreateRetVoid();
  }

 private:
  // Rows of weights and values for so many keys.
  Value* in_words(Value* keys) {
    const std::int64_t per_word = layout_.block.per_word;
    return per_word == 1 ? keys : e_.b.CreateLShr(e_.b.CreateAdd(keys, e_.index(1)), e_.index(1));
  }

  // Blocks of queries; each fetches as many lines of the next tile as there are rows, first of its keys and
  // then of its values, so that the whole touches the next tile once.
  void value_blocks(llvm::Function* value_block, Value* key_tile, Value* v, Value* v_step, Value* keys,
                    Value* first, Value* end) {
    Value* const next_k = member(e_, key_tile, offsetof(KeyTile, next_k), e_.ptr);
    Value* const next_v = member(e_, key_tile, offsetof(KeyTile, next_v), e_.ptr);
    Value* const rows = in_words(keys);
    Value* const line = e_.b.CreateMul(rows, e_.index(64));
    Value* const k_bytes = e_.b.CreateMul(keys, e_.index(4 / layout_.block.per_word * layout_.head_dim));
    e_.loop(first, end, layout_.block.pv_queries, {}, [&](Value* query, const Values&) {
      Value* const number = e_.small_quotient(query, layout_.block.pv_queries);
      Value* const offset = e_.b.CreateMul(number, line);
      Value* const of_keys = e_.b.CreateICmpSLT(offset, k_bytes);
      Value* const next = e_.b.CreateSelect(of_keys, e_.at(e_.i8, next_k, offset),
                                            e_.at(e_.i8, next_v, e_.b.CreateSub(offset, k_bytes)));
      Value* const column = e_.b.CreateSub(query, first);
      e_.b.CreateCall(value_block, {workspace(layout_.scores, column), v, v_step, output_of(query),
                                    workspace(layout_.rescale, query), rows, next});
      return Values{};
    });
  }
};

}  // namespace

void emit_visit(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel) {
  Visit(e, layout, kernel).run();
}

}  // namespace vicinal::cpu
