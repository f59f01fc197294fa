#include "runtime/cpu/llvm/pair_gradients.h"

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
        type_(e.vector(e.f32)) {
    static constexpr const char* names[] = {"gradients_full", "gradients_partial", "context_full",
                                            "context_partial"};
    f_ = e.function(names[kind], e.b.getVoidTy(), {e.ptr, e.ptr, e.i64, e.i64, e.i64});
    query_tile_ = f_->getArg(0);
    query_ = f_->getArg(2);
    core_ = module_.root(Root::score);
    if (partial_ && keys_.has_mask) mask_ = module_.root(Root::mask);
    for (const ir::Partial& p : module_.partials) {
      const auto* s = std::get_if<ir::Symbol>(&module_[p.leaf].what);
      if (p.of == Root::score && s != nullptr && s->kind == SymbolKind::score) slope_ = p.value;
    }
    for (std::size_t i = 0; i < kernel.sites.size(); ++i)
      if (kernel.sites[i].context == context_) sites_.push_back({kernel.sites[i], i});
  }

  llvm::Function* run() {
    places_.emplace(e_, layout_, f_->getArg(1), context_);
    queries_ = query_vectors(e_, layout_, query_tile_, query_);
    std::vector<NodeId> roots = {core_, mask_, slope_};
    if (kernel_.scale_sum) roots.push_back(keys_.form.factor);
    for (const Site& s : sites_) {
      roots.push_back(s.of.value);
      if (!s.of.uniform)
        for (const NodeId index : module_[s.of.leaf].operands) roots.push_back(index);
    }
    expressions_.emplace(e_, kernel_, keys_, query_tile_, roots);
    for (const Site& s : sites_)
      if (!s.of.uniform) expressions_->load_gradient(s.of.leaf);
    expressions_->hoist(queries_);
    prepare();
    Values sums(sites_.size() + 1, e_.number(type_, 0));
    const Expressions::Mark mark = expressions_->mark();
    Value* const count = f_->getArg(4);
    sums = e_.loop_if_any(e_.index(0), count, 1, sums, [&](Value* row, const Values& so_far) {
      Values next = key(row, so_far);
      expressions_->forget(mark);
      return next;
    });
    finish(sums);
    e_.b.CreateRetVoid();
    return f_;
  }

 private:
  struct Site {
    emit::CpuSite of;
    std::size_t number;
    bool by_row = false;      // summed over the keys first
    Value* offset = nullptr;  // then
  };

  Value* workspace(std::int64_t offset) {
    Value* const base = member(e_, query_tile_, offsetof(QueryTile, workspace), e_.ptr);
    return e_.at(e_.f32, e_.at(e_.f32, base, offset), query_);
  }

  // What is the same for all keys.
  void prepare() {
    scores_ = workspace(layout_.scores);
    d_scores_ = workspace(layout_.d_scores);
    if (kernel_.normalize == Normalize::softmax) {
      lse_ = e_.load(type_, workspace(layout_.lse));
      shared_ = e_.load(type_, workspace(layout_.shared));
    }
    if (kernel_.scale_sum) scale_ = e_.as_vector(expressions_->emit(keys_.form.factor, queries_));
    if (partial_ && !context_) windows_.emplace(e_, layout_, kernel_, query_tile_, query_);
    // The lanes that hold a query.
    Value* const left = e_.b.CreateSub(member(e_, query_tile_, offsetof(QueryTile, count), e_.i64), query_);
    left_ = e_.b.CreateBinaryIntrinsic(llvm::Intrinsic::smin, left, e_.index(kLanes));
    if (!sites_.empty() || kernel_.scale_sum)
      alive_ = e_.b.CreateICmpSLT(e_.lane_numbers(), e_.splat(e_.b.CreateTrunc(left_, e_.i32)));
    const std::vector<std::uint8_t> varies = ir::variance(module_);
    for (Site& s : sites_) {
      if (s.of.uniform) continue;
      const auto& indices = module_[s.of.leaf].operands;
      s.by_row = std::ranges::none_of(
          indices, [&](NodeId id) { return (varies[id.value] & (ir::kKey | ir::kScore)) != 0; });
      if (s.by_row) s.offset = expressions_->gradient_offset(s.of.leaf, queries_);
    }
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
  // d * slope, 0 where the slope is 0 or the key is not kept, whatever d is.
  Value* times_slope(Value* d, Value* slope, Value* keep, double nothing = 0) {
    Value* counts = e_.b.CreateFCmpUNE(slope, e_.number(type_, 0));
    if (keep != nullptr) counts = e_.b.CreateAnd(counts, keep);
    return e_.b.CreateSelect(counts, e_.b.CreateFMul(d, slope), e_.number(type_, nothing));
  }

  // A key; returns the sums over keys.
  Values key(Value* row, const Values& so_far) {
    Value* const n = e_.b.CreateAdd(row, f_->getArg(3));
    Value* const offset = e_.b.CreateMul(row, e_.index(layout_.block.tile_q));
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
      d_product = times_slope(d, e_.as_vector(expressions_->emit(slope_, at)), keep, exact ? -0.0 : 0.0);
    e_.store(d_product, to_d_score);
    return captured(at, d, keep, dot, d_product, so_far);
  }

  Values captured(const Expressions::Symbols& at, Value* d, Value* keep, Value* dot, Value* d_product,
                  const Values& so_far) {
    Values next = so_far;
    for (std::size_t i = 0; i < sites_.size(); ++i) {
      const Site& s = sites_[i];
      Value* const x = times_slope(d, e_.as_vector(expressions_->emit(s.of.value, at)), keep);
      if (s.of.uniform || s.by_row)
        next[i] = e_.b.CreateFAdd(next[i], x);
      else
        add(s, expressions_->gradient_offset(s.of.leaf, at), x);
    }
    if (kernel_.scale_sum) {
      Value* const counts = e_.b.CreateFCmpUNE(d_product, e_.number(type_, 0));
      Value* const x = e_.b.CreateSelect(counts, e_.b.CreateFMul(d_product, dot), e_.number(type_, 0));
      next.back() = e_.b.CreateFAdd(next.back(), x);
    }
    return next;
  }

  void finish(const Values& sums) {
    Value* const totals = member(e_, query_tile_, offsetof(QueryTile, totals), e_.ptr);
    const auto add_total = [&](std::int64_t number, Value* x) {
      Value* const alive = e_.b.CreateSelect(alive_, x, e_.number(type_, 0));
      add_to_double(e_, e_.at(e_.f64, totals, number), sum_of_lanes(e_, alive));
    };
    for (std::size_t i = 0; i < sites_.size(); ++i) {
      const Site& s = sites_[i];
      if (s.of.uniform)
        add_total(kSiteTotals + static_cast<std::int64_t>(s.number), sums[i]);
      else if (s.by_row)
        add(s, s.offset, sums[i]);
    }
    if (kernel_.scale_sum) add_total(kScaleTotal, sums.back());
  }

  // Adds to elements of a gradient. A scalar offset is that of all lanes.
  void add(const Site& s, Value* offset, Value* x) {
    Value* const data = expressions_->gradient_data(s.of.leaf);
    if (!Emitter::is_vector(offset)) {
      Value* const alive = e_.b.CreateSelect(alive_, x, e_.number(type_, 0));
      add_to_double(e_, e_.at(e_.f64, data, offset), sum_of_lanes(e_, alive));
      return;
    }
    // One after another: lanes may meet in one element.
    if (lanes_ == nullptr) lanes_ = e_.scratch(3);
    Value* const offsets = e_.at(e_.f32, lanes_, kLanes);
    e_.store(x, lanes_);
    e_.store(offset, offsets);
    e_.loop(e_.index(0), left_, 1, {}, [&](Value* lane, const Values&) {
      Value* const element = e_.load(e_.i64, e_.at(e_.i64, offsets, lane));
      add_to_double(e_, e_.at(e_.f64, data, element), e_.load(e_.f32, e_.at(e_.f32, lanes_, lane)));
      return Values{};
    });
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
        *shared_ = nullptr, *scale_ = nullptr, *left_ = nullptr, *alive_ = nullptr, *lanes_ = nullptr;
  NodeId core_, mask_, slope_;
  std::vector<Site> sites_;
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

Value* sum_of_lanes(Emitter& e, Value* x) {
  for (int half = kLanes / 2; half > 0; half /= 2) {
    std::vector<int> low, high;
    for (int i = 0; i < half; ++i) low.push_back(i), high.push_back(half + i);
    x = e.b.CreateFAdd(e.b.CreateShuffleVector(x, low), e.b.CreateShuffleVector(x, high));
  }
  return e.b.CreateExtractElement(x, std::uint64_t{0});
}

void add_to_double(Emitter& e, Value* address, Value* x) {
  e.store(e.b.CreateFAdd(e.load(e.f64, address), e.b.CreateFPExt(x, e.f64)), address);
}

}  // namespace vicinal::cpu
