#include "runtime/cpu/llvm/pair_gradients.h"

#include "runtime/cpu/llvm/captured_sums.h"
#include "runtime/cpu/llvm/elementary.h"

namespace vicinal::cpu {
namespace {

using ir::NodeId;
using ir::Normalize;
using ir::Root;
using ir::SymbolKind;

// Below e^-80 a weight counts as 0, so that no gradient is made of subnormal numbers.
constexpr double kLeastExponent = -80;

class PairGradients {
 public:
  PairGradients(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel, KeyTileKind kind)
      : e_(e),
        layout_(layout),
        kernel_(kernel),
        context_(kind >= kFullContext),
        partial_(kind == kPartialTile || kind == kPartialContext),
        keys_(kernel.keys(context_)),
        module_(keys_.form.module),
        type_(e.vector(e.f32)),
        captured_(e, kernel, context_, Root::score) {
    static constexpr const char* names[] = {"gradients_full", "gradients_partial", "context_full",
                                            "context_partial"};
    f_ = e.function(names[kind], e.b.getVoidTy(), {e.ptr, e.ptr, e.i64, e.i64, e.i64, e.i64});
    query_tile_ = f_->getArg(0);
    query_ = f_->getArg(2);
    core_ = module_.root(Root::score);
    if (partial_ && keys_.has_mask) mask_ = module_.root(Root::mask);
    for (const ir::Partial& p : module_.partials) {
      const auto* s = std::get_if<ir::Symbol>(&module_[p.leaf].what);
      if (p.of == Root::score && s != nullptr && s->kind == SymbolKind::score) slope_ = p.value;
    }
  }

  llvm::Function* run() {
    places_.emplace(e_, layout_, f_->getArg(1), context_);
    queries_ = query_vectors(e_, layout_, query_tile_, query_);
    std::vector<NodeId> roots = {core_, mask_, slope_};
    if (kernel_.scale_sum) roots.push_back(keys_.form.factor);
    captured_.add_roots(roots);
    expressions_.emplace(e_, kernel_, keys_, query_tile_, roots);
    // The lanes that hold a query.
    Value* const left = e_.b.CreateSub(member(e_, query_tile_, offsetof(QueryTile, count), e_.i64), query_);
    Value* const lanes = e_.b.CreateBinaryIntrinsic(llvm::Intrinsic::smin, left, e_.index(kLanes));
    captured_.start(*expressions_, query_tile_, lanes);
    expressions_->hoist(queries_);
    prepare();
    // Of what is captured, and last of the scale.
    Values sums = captured_.zeros();
    if (kernel_.scale_sum) sums.push_back(e_.number(type_, 0));
    const Expressions::Mark mark = expressions_->mark();
    Value* const count = f_->getArg(5);
    sums = e_.loop_if_any(e_.index(0), count, 1, sums, [&](Value* row, const Values& so_far) {
      Values next = key(row, so_far);
      expressions_->forget(mark);
      return next;
    });
    if (kernel_.scale_sum) {
      Value* const totals = member(e_, query_tile_, offsetof(QueryTile, totals), e_.ptr);
      add_to_double(e_, e_.at(e_.f64, totals, kScaleTotal), captured_.sum_of(sums.back()));
      sums.pop_back();
    }
    captured_.finish(sums, queries_);
    e_.b.CreateRetVoid();
    return f_;
  }

 private:
  Value* workspace(std::int64_t offset, Value* element) {
    Value* const base = member(e_, query_tile_, offsetof(QueryTile, workspace), e_.ptr);
    return e_.at(e_.f32, e_.at(e_.f32, base, offset), element);
  }

  // What is the same for all keys.
  void prepare() {
    Value* const column = f_->getArg(3);
    scores_ = workspace(layout_.scores, column);
    d_scores_ = workspace(layout_.d_scores, column);
    if (kernel_.normalize == Normalize::softmax) {
      lse_ = e_.load(type_, workspace(layout_.lse, query_));
      shared_ = e_.load(type_, workspace(layout_.shared, query_));
    }
    if (kernel_.scale_sum) scale_ = e_.as_vector(expressions_->emit(keys_.form.factor, queries_));
    if (partial_ && !context_) windows_.emplace(e_, layout_, kernel_, query_tile_, query_);
  }

  // Null: always.
  Value* kept(Value* n, const Expressions::Symbols& at, Value* score) {
    Value* keep = windows_ ? windows_->keep(*places_, n) : nullptr;
    const auto also = [&](Value* condition) {
      keep = keep == nullptr ? condition : e_.b.CreateAnd(keep, condition);
    };
    if (mask_.valid()) also(e_.as_vector(expressions_->emit(mask_, at)));
    // Nothing to compute, a score of -inf has a weight of 0 by itself, and NaN is for exact code to find.
    if (core_.valid() || kernel_.options.exact || kernel_.normalize != Normalize::softmax)
      also(e_.b.CreateFCmpUNE(score, e_.infinity(type_, true)));
    return keep;
  }

  Value* weight(Value* score) {
    switch (kernel_.normalize) {
      case Normalize::sigmoid: return sigmoid(e_, score);
      case Normalize::none: return e_.b.CreateFAdd(score, e_.number(type_, 0));
      case Normalize::softmax: break;
    }
    Value* const exponent = e_.b.CreateFSub(score, lse_);
    return e_.b.CreateSelect(e_.b.CreateFCmpOLT(exponent, e_.number(type_, kLeastExponent)),
                             e_.number(type_, 0), exp_of_weight(e_, exponent));
  }
  // Of the score, from that of the weight.
  Value* d_score(Value* w, Value* d_weight) {
    switch (kernel_.normalize) {
      case Normalize::sigmoid: {
        Value* const slope = e_.b.CreateFMul(w, e_.b.CreateFSub(e_.number(type_, 1), w));
        return e_.b.CreateFMul(slope, d_weight);
      }
      case Normalize::none: return d_weight;
      case Normalize::softmax: break;
    }
    return e_.b.CreateFMul(w, e_.b.CreateFAdd(d_weight, shared_));
  }

  // A key; returns the sums over keys.
  Values key(Value* row, const Values& so_far) {
    Value* const n = e_.b.CreateAdd(row, f_->getArg(4));
    Value* const offset = e_.b.CreateMul(row, e_.index(layout_.block.unit));
    Value *const to_weight = e_.at(e_.f32, scores_, offset), *const to_d_score =
                                                                 e_.at(e_.f32, d_scores_, offset);
    Value* const dot = e_.load(type_, to_weight);
    Value* const product = scale_ == nullptr ? dot : e_.b.CreateFMul(dot, scale_);
    const Expressions::Symbols at = places_->pair(n, product, queries_);
    Value* const score = core_.valid() ? e_.as_vector(expressions_->emit(core_, at)) : product;
    Value* const keep = kept(n, at, score);
    Value* const w = weight(score);
    const bool exact = kernel_.options.exact;
    Value* const none = e_.number(type_, exact ? -0.0 : 0.0);
    Value* const d = d_score(w, e_.load(type_, to_d_score));
    e_.store(keep == nullptr ? w : e_.b.CreateSelect(keep, w, none), to_weight);
    Value* d_product = none;
    if (!core_.valid())
      d_product = keep == nullptr ? d : e_.b.CreateSelect(keep, d, none);
    else if (slope_.valid())
      d_product = times_slope(e_, d, e_.as_vector(expressions_->emit(slope_, at)), keep, exact ? -0.0 : 0.0);
    e_.store(d_product, to_d_score);
    Values next = captured_.add({so_far.begin(), so_far.begin() + captured_.size()}, d, keep, at);
    if (kernel_.scale_sum)
      next.push_back(e_.b.CreateFAdd(so_far.back(), times_slope(e_, dot, d_product, nullptr)));
    return next;
  }

  Emitter& e_;
  const KernelLayout& layout_;
  const emit::CpuKernel& kernel_;
  const bool context_, partial_;
  const emit::CpuKeys& keys_;
  const ir::Module& module_;
  llvm::Type* const type_;
  llvm::Function* f_ = nullptr;
  Value *query_tile_ = nullptr, *query_ = nullptr, *scores_ = nullptr, *d_scores_ = nullptr, *lse_ = nullptr,
        *shared_ = nullptr, *scale_ = nullptr;
  NodeId core_, mask_, slope_;
  CapturedSums captured_;
  std::optional<KeyPlaces> places_;
  std::optional<Windows> windows_;
  std::optional<Expressions> expressions_;
  Expressions::Symbols queries_;
};

}  // namespace

llvm::Function* emit_pair_gradients(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel,
                                    KeyTileKind kind) {
  return PairGradients(e, layout, kernel, kind).run();
}

}  // namespace vicinal::cpu
