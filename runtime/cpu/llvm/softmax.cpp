#include "runtime/cpu/llvm/softmax.h"

#include "runtime/cpu/llvm/elementary.h"
#include "runtime/cpu/llvm/pair_places.h"
#include "runtime/cpu/llvm/products.h"

namespace vicinal::cpu {
namespace {

using ir::NodeId;
using ir::Root;
using ir::SymbolKind;

// Short loop bodies are repeated, so that the steps of neighbouring keys overlap; long ones need no help.
// Two, which is also what a pair of weights needs.
constexpr std::int64_t kUnroll = 2;

const emit::CpuKeys& keys_of(const emit::CpuKernel& kernel, KeyTileKind kind) {
  return kind >= kFullContext ? *kernel.context : kernel.grid;
}

Value* workspace(Emitter& e, Value* query_tile, std::int64_t offset, Value* query) {
  Value* const base = member(e, query_tile, offsetof(QueryTile, workspace), e.ptr);
  return e.at(e.f32, e.at(e.f32, base, offset), query);
}

// Where weights of the keys n and n + 1 lie as pairs, in rows that have been read.
Value* pair_row(Emitter& e, const KernelLayout& layout, Value* scores, Value* n) {
  return e.at(e.f32, scores, e.b.CreateMul(e.b.CreateLShr(n, e.index(1)), e.index(layout.block.unit)));
}

// Weights of keys that fill up a block are 0, as pairs.
void fill_block(Emitter& e, const KernelLayout& layout, Value* scores, Value* keys) {
  if (!layout.block.matrices) return;
  e.loop_if_any(e.round_up(keys, 2), e.round_up(keys, kMatrixDepth), 2, {}, [&](Value* n, const Values&) {
    e.store(e.number(e.vector(e.f32), 0), pair_row(e, layout, scores, n));
    return Values{};
  });
}

// All that emit_scores puts together for one key.
class ScoreEmitter {
 public:
  ScoreEmitter(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel, KeyTileKind kind)
      : e_(e),
        layout_(layout),
        kernel_(kernel),
        keys_(keys_of(kernel, kind)),
        context_(kind >= kFullContext),
        partial_(kind == kPartialTile || kind == kPartialContext),
        softmax_(kernel.normalize == ir::Normalize::softmax) {
    static constexpr const char* names[] = {"scores_full", "scores_partial", "context_full",
                                            "context_partial"};
    f_ = e.function(names[kind], e.b.getVoidTy(), {e.ptr, e.ptr, e.i64, e.i64, e.i64, e.i64});
    query_tile_ = f_->getArg(0);
    key_tile_ = f_->getArg(1);
    query_ = f_->getArg(2);
    skipped_ = f_->getArg(4);
    const ir::Module& m = keys_.form.module;
    core_ = keys_.form.core_is_score ? NodeId{} : m.root(Root::score);
    if (partial_ && keys_.has_mask) mask_ = m.root(Root::mask);
  }

  llvm::Function* run() {
    places_.emplace(e_, layout_, key_tile_, context_);
    scores_ = workspace(e_, query_tile_, layout_.scores, f_->getArg(3));
    Value* const count = f_->getArg(5);
    const NodeId roots[] = {core_, mask_, factor(), slope()};
    expressions_.emplace(e_, kernel_, keys_, query_tile_, roots);
    queries_ = query_vectors(e_, layout_, query_tile_, query_);
    expressions_->hoist(queries_);
    prepare();
    const Expressions::Mark mark = expressions_->mark();
    const auto one = [&](Value* n, Value* largest) {
      Value* const x = key(n);
      expressions_->forget(mark);
      return softmax_ ? e_.larger(x, largest) : largest;
    };
    const bool repeats = !core_.valid() && !mask_.valid() && (!windows_ || windows_->empty());
    const std::int64_t unroll = repeats ? kUnroll : 1;
    Values largest(static_cast<std::size_t>(unroll), e_.infinity(e_.vector(e_.f32), true));
    Value* whole = count;
    if (unroll > 1) {
      whole = e_.b.CreateAnd(count, e_.index(-unroll));
      largest = e_.loop_if_any(e_.index(0), whole, unroll, largest, [&](Value* n, const Values& so_far) {
        Values next;
        for (std::int64_t i = 0; i < unroll; ++i)
          next.push_back(one(e_.b.CreateAdd(n, e_.index(i)), so_far[static_cast<std::size_t>(i)]));
        return next;
      });
    }
    largest[0] = e_.loop_if_any(unroll > 1 ? whole : e_.index(0), count, 1, {largest[0]},
                                [&](Value* n, const Values& so_far) { return Values{one(n, so_far[0])}; })[0];
    for (std::size_t i = 1; i < largest.size(); ++i) largest[0] = e_.larger(largest[0], largest[i]);
    if (softmax_) e_.store(largest[0], workspace(e_, query_tile_, layout_.tile_maximum, query_));
    e_.b.CreateRetVoid();
    return f_;
  }

 private:
  NodeId factor() const {
    return softmax_ && !is_plain_product(kernel_, layout_) ? keys_.form.factor : NodeId{};
  }
  NodeId slope() const { return softmax_ ? keys_.form.slope : NodeId{}; }

  // What is the same for all keys.
  void prepare() {
    const auto vector = [&](NodeId id) { return e_.as_vector(expressions_->emit(id, queries_)); };
    if (factor().valid()) factor_ = vector(factor());
    if (slope().valid()) {
      slope_ = vector(slope());
      position_ = queries_({SymbolKind::q, 0});
    }
    if (partial_ && !context_) windows_.emplace(e_, layout_, kernel_, query_tile_, query_);
  }

  // The score of a key, stored; returns it.
  Value* key(Value* row) {
    Value* const n = e_.b.CreateAdd(row, skipped_);
    Value* const address = e_.at(e_.f32, scores_, e_.b.CreateMul(row, e_.index(layout_.block.unit)));
    Value* const stored = e_.load(e_.vector(e_.f32), address);
    Value* product = stored;
    if (kernel_.key_l2norm) {
      Value* const norms = workspace(e_, query_tile_, layout_.norms, n);
      product = e_.b.CreateFMul(stored, e_.splat(e_.load(e_.f32, norms)));
    }
    const Expressions::Symbols at = places_->pair(n, product, queries_);
    Value* x = core_.valid() ? e_.as_vector(expressions_->emit(core_, at)) : product;
    if (slope_ != nullptr) {
      Value* const distance =
          e_.b.CreateSIToFP(e_.b.CreateSub(e_.splat(places_->position(n)), position_), e_.vector(e_.f32));
      if (factor_ != nullptr) x = e_.b.CreateFMul(x, factor_);
      x = e_.fma(distance, slope_, x);
    } else if (factor_ != nullptr) {
      x = e_.b.CreateFMul(x, factor_);
    }
    Value* const keep = kept(n, at);
    if (softmax_) {
      if (keep != nullptr) x = e_.b.CreateSelect(keep, x, e_.infinity(x->getType(), true));
    } else {
      x = weight(x, keep);
    }
    if (x != stored) e_.store(x, address);
    return x;
  }

  // Without a softmax.
  Value* weight(Value* x, Value* keep) {
    Value* here = e_.b.CreateFCmpUNE(x, e_.infinity(x->getType(), true));
    if (keep != nullptr) here = e_.b.CreateAnd(here, keep);
    Value* const zero = e_.number(x->getType(), 0);
    Value* const w = kernel_.normalize == ir::Normalize::sigmoid ? sigmoid(e_, x) : e_.b.CreateFAdd(x, zero);
    return e_.b.CreateSelect(here, w, e_.number(x->getType(), -0.0));
  }

  // Null: always.
  Value* kept(Value* n, const Expressions::Symbols& at) {
    Value* const inside = windows_ ? windows_->keep(*places_, n) : nullptr;
    if (!mask_.valid()) return inside;
    Value* const keep = e_.as_vector(expressions_->emit(mask_, at));
    return inside == nullptr ? keep : e_.b.CreateAnd(inside, keep);
  }

  Emitter& e_;
  const KernelLayout& layout_;
  const emit::CpuKernel& kernel_;
  const emit::CpuKeys& keys_;
  const bool context_, partial_, softmax_;
  llvm::Function* f_ = nullptr;
  Value *query_tile_ = nullptr, *key_tile_ = nullptr, *query_ = nullptr, *scores_ = nullptr,
        *skipped_ = nullptr;
  NodeId core_, mask_;
  std::optional<KeyPlaces> places_;
  std::optional<Expressions> expressions_;
  Expressions::Symbols queries_;
  Value *factor_ = nullptr, *slope_ = nullptr, *position_ = nullptr;
  std::optional<Windows> windows_;
};

}  // namespace

bool is_plain_product(const emit::CpuKernel& kernel, const KernelLayout& layout) {
  // Pairs of channels are multiplied as they lie in memory.
  return layout.block.per_word == 1 && kernel.normalize == ir::Normalize::softmax &&
         kernel.grid.form.core_is_score && (!kernel.context || kernel.context->form.core_is_score);
}

llvm::Function* emit_scores(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel,
                            KeyTileKind kind) {
  return ScoreEmitter(e, layout, kernel, kind).run();
}

llvm::Function* emit_weights(Emitter& e, const KernelLayout& layout, bool exact) {
  llvm::Function* const f =
      e.function(exact ? "exact_weights" : "weights", e.b.getVoidTy(), {e.ptr, e.i64, e.i64, e.i64});
  Value *const query_tile = f->getArg(0), *const query = f->getArg(1), *const column = f->getArg(2),
               *const keys = f->getArg(3);
  llvm::Type* const type = e.vector(e.f32);
  const auto array = [&](std::int64_t offset) { return workspace(e, query_tile, offset, query); };
  Value* const before = e.load(type, array(layout.maximum));
  Value* const now = e.larger(e.load(type, array(layout.tile_maximum)), before);
  Value* const minus_infinity = e.infinity(type, true);
  // Any number does where nothing is kept yet.
  Value* const base = e.b.CreateSelect(e.b.CreateFCmpOEQ(now, minus_infinity), e.number(type, 0), now);
  // 1 where nothing larger came, also of a sink that is inf, whose difference from itself is no number.
  Value* const rescale = e.b.CreateSelect(e.b.CreateFCmpOEQ(before, now), e.number(type, 1),
                                          exp_of_weight(e, e.b.CreateFSub(before, base)));
  e.store(now, array(layout.maximum));
  e.store(rescale, array(layout.rescale));

  // Rows up to the next multiple are there to be written over.
  const std::int64_t unit = layout.block.unit;
  Value* const scores = workspace(e, query_tile, layout.scores, column);
  Value* const whole = e.round_up(keys, kUnroll);
  e.loop_if_any(keys, whole, 1, {}, [&](Value* n, const Values&) {
    e.store(minus_infinity, e.at(e.f32, scores, e.b.CreateMul(n, e.index(unit))));
    return Values{};
  });
  Values sums(static_cast<std::size_t>(kUnroll), e.number(type, 0));
  sums[0] = e.b.CreateFMul(rescale, e.load(type, array(layout.sum)));
  const bool pairs = layout.block.per_word == 2;
  sums = e.loop_if_any(e.index(0), whole, kUnroll, sums, [&](Value* n, const Values& so_far) {
    Values next, weights;
    Value* const row = e.at(e.f32, scores, e.b.CreateMul(n, e.index(unit)));
    for (std::int64_t i = 0; i < kUnroll; ++i) {
      Value* const address = e.at(e.f32, row, i * unit);
      Value* const x = e.load(type, address);
      Value* weight = exp_of_weight(e, e.b.CreateFSub(x, base));
      if (exact)
        weight = e.b.CreateSelect(e.b.CreateFCmpOEQ(x, minus_infinity), e.number(type, -0.0), weight);
      if (!pairs) e.store(weight, address);
      weights.push_back(weight);
      next.push_back(e.b.CreateFAdd(so_far[static_cast<std::size_t>(i)], weight));
    }
    if (pairs) e.store(pairs_of(e, weights[0], weights[1]), pair_row(e, layout, scores, n));
    return next;
  });
  fill_block(e, layout, scores, keys);
  for (std::size_t i = 1; i < sums.size(); ++i) sums[0] = e.b.CreateFAdd(sums[0], sums[i]);
  e.store(sums[0], array(layout.sum));
  e.b.CreateRetVoid();
  return f;
}

llvm::Function* emit_weight_pairs(Emitter& e, const KernelLayout& layout) {
  llvm::Function* const f = e.function("weight_pairs", e.b.getVoidTy(), {e.ptr, e.i64, e.i64, e.i64});
  Value* const keys = f->getArg(3);
  Value* const weights = workspace(e, f->getArg(0), layout.scores, f->getArg(2));
  llvm::Type* const type = e.vector(e.f32);
  const std::int64_t unit = layout.block.unit;
  e.loop_if_any(e.index(0), keys, 2, {}, [&](Value* n, const Values&) {
    Value* const row = e.at(e.f32, weights, e.b.CreateMul(n, e.index(unit)));
    // A key that is alone has no weight beside it.
    Value* const alone = e.b.CreateICmpEQ(e.b.CreateAdd(n, e.index(1)), keys);
    Value* const second = e.b.CreateSelect(alone, e.number(type, 0), e.load(type, e.at(e.f32, row, unit)));
    e.store(pairs_of(e, e.load(type, row), second), pair_row(e, layout, weights, n));
    return Values{};
  });
  fill_block(e, layout, weights, keys);
  e.b.CreateRetVoid();
  return f;
}

}  // namespace vicinal::cpu
