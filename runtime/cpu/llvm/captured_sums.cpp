#include "runtime/cpu/llvm/captured_sums.h"

#include <algorithm>

#include "runtime/cpu/generated_code.h"
#include "runtime/cpu/llvm/elements.h"

namespace vicinal::cpu {
namespace {

using ir::NodeId;

// void (double* sums, float by, const T* factors, i64 step, i64 count): sums += by * factors, an element for
// each.
llvm::Function* emit_add_products(Emitter& e, DType dtype) {
  const std::string name = "add_products_" + std::string(name_of(dtype));
  if (llvm::Function* const known = e.module().getFunction(name)) return known;
  llvm::Function* const f = e.function(name, e.b.getVoidTy(), {e.ptr, e.f32, e.ptr, e.i64, e.i64});
  Value *const sums = f->getArg(0), *const factors = f->getArg(2), *const step = f->getArg(3),
               *const count = f->getArg(4);
  Value* const by = e.b.CreateFPExt(f->getArg(1), e.f64);
  llvm::Type* const memory = memory_type(e, dtype);
  const auto add = [&](Value* i, Value* scale, Value* x) {
    Value* const to = e.at(e.f64, sums, i);
    Value* const wide = e.b.CreateFPExt(x, scale->getType());
    e.store(e.fma(scale, wide, e.load(scale->getType(), to)), to);
    return Values{};
  };
  Value* const together = e.b.CreateICmpEQ(step, e.index(1));
  Value* const whole = e.b.CreateSelect(together, e.b.CreateAnd(count, e.index(-kLanes)), e.index(0));
  Value* const all_by = e.splat(by);
  e.loop_if_any(e.index(0), whole, kLanes, {}, [&](Value* i, const Values&) {
    return add(i, all_by, load_floats(e, dtype, e.at(memory, factors, i), kLanes));
  });
  e.loop_if_any(whole, count, 1, {}, [&](Value* i, const Values&) {
    Value* const x = e.load(memory, e.at(memory, factors, e.b.CreateMul(i, step)));
    return add(i, by, from_memory(e, dtype, ir::Type::real, x));
  });
  e.b.CreateRetVoid();
  return f;
}

}  // namespace

CapturedSums::CapturedSums(Emitter& e, const emit::CpuKernel& kernel, bool context, ir::Root of)
    : e_(e), module_(kernel.keys(context).form.module) {
  const std::vector<std::uint8_t> varies = ir::variance(module_);
  for (std::size_t i = 0; i < kernel.sites.size(); ++i) {
    const emit::CpuSite& site = kernel.sites[i];
    if (site.context != context || site.of != of) continue;
    const ir::Node& leaf = module_[site.leaf];
    const bool summed = std::ranges::none_of(
        leaf.operands, [&](NodeId id) { return (varies[id.value] & (ir::kKey | ir::kScore)) != 0; });
    sites_.push_back({site, kSiteTotals + static_cast<std::int64_t>(i), summed});
    if (std::holds_alternative<ir::Dot>(leaf.what)) {
      const std::uint32_t other = emit::read_of(leaf, !site.second).input;
      sites_.back().add_products = emit_add_products(e, kernel.options.input_dtypes[other]);
    }
  }
}

void CapturedSums::add_roots(std::vector<NodeId>& roots) const {
  for (const Site& s : sites_) {
    roots.push_back(s.of.value);
    if (!s.of.uniform)
      for (const NodeId index : module_[s.of.leaf].operands) roots.push_back(index);
  }
}

void CapturedSums::start(Expressions& expressions, Value* query_tile, Value* lanes) {
  expressions_ = &expressions;
  query_tile_ = query_tile;
  count_ = lanes == nullptr ? e_.index(kLanes) : lanes;
  if (lanes != nullptr)
    alive_ = e_.b.CreateICmpSLT(e_.lane_numbers(), e_.splat(e_.b.CreateTrunc(lanes, e_.i32)));
  for (const Site& s : sites_)
    if (!s.of.uniform) expressions.load_gradient(s.of);
}

Values CapturedSums::add(const Values& so_far, Value* gradient, Value* keep, const Expressions::Symbols& at) {
  Values next = so_far;
  for (std::size_t i = 0; i < sites_.size(); ++i) {
    Value* const slope = e_.as_vector(expressions_->emit(sites_[i].of.value, at));
    Value* const x = times_slope(e_, gradient, slope, keep);
    if (sites_[i].summed)
      next[i] = e_.b.CreateFAdd(next[i], x);
    else
      add_to_elements(sites_[i], x, at);
  }
  return next;
}

void CapturedSums::finish(const Values& sums, const Expressions::Symbols& at) {
  for (std::size_t i = 0; i < sites_.size(); ++i) {
    const Site& s = sites_[i];
    if (s.of.uniform) {
      Value* const totals = member(e_, query_tile_, offsetof(QueryTile, totals), e_.ptr);
      add_to_double(e_, e_.at(e_.f64, totals, s.total), sum_of(sums[i]));
    } else if (s.summed) {
      add_to_elements(s, sums[i], at);
    }
  }
}

void CapturedSums::add_to_elements(const Site& site, Value* x, const Expressions::Symbols& at) {
  Value* const offset = expressions_->gradient_offset(site.of, at);
  Expressions::Factors factors{};
  if (site.add_products != nullptr) factors = expressions_->factors(site.of, at);
  Value* const from = factors.offset;  // null unless of a Dot
  const auto add = [&](Value* element, Value* factor, Value* by) {
    Value* const to = e_.at(e_.f64, expressions_->gradient_data(site.of), element);
    if (site.add_products == nullptr) return add_to_double(e_, to, by);
    e_.when(e_.b.CreateFCmpUNE(by, e_.number(e_.f32, 0)), [&] {
      Value* const first = e_.at(memory_type(e_, factors.dtype), factors.data, factor);
      e_.b.CreateCall(site.add_products, {to, by, first, factors.step, factors.count});
    });
  };
  // One element for all lanes.
  if (!Emitter::is_vector(offset) && (from == nullptr || !Emitter::is_vector(from)))
    return add(offset, from, sum_of(x));
  // One lane after another: they may meet in one element.
  constexpr std::int64_t kOffsets = kLanes, kFactors = 3 * kLanes;
  if (scratch_ == nullptr) scratch_ = e_.scratch(5);
  const auto keep = [&](Value* lanes, std::int64_t where) {
    e_.store(e_.as_vector(lanes), e_.at(e_.f32, scratch_, where));
  };
  keep(x, 0);
  keep(offset, kOffsets);
  if (from != nullptr) keep(from, kFactors);
  e_.loop(e_.index(0), count_, 1, {}, [&](Value* lane, const Values&) {
    const auto kept = [&](llvm::Type* type, std::int64_t where) {
      return e_.load(type, e_.at(type, e_.at(e_.f32, scratch_, where), lane));
    };
    add(kept(e_.i64, kOffsets), from == nullptr ? nullptr : kept(e_.i64, kFactors), kept(e_.f32, 0));
    return Values{};
  });
}

Value* CapturedSums::sum_of(Value* x) const {
  return sum_of_lanes(e_, alive_ == nullptr ? x : e_.b.CreateSelect(alive_, x, e_.number(x->getType(), 0)));
}

Value* times_slope(Emitter& e, Value* gradient, Value* slope, Value* keep, double nothing) {
  llvm::Type* const type = gradient->getType();
  Value* counts = e.b.CreateFCmpUNE(slope, e.number(type, 0));
  if (keep != nullptr) counts = e.b.CreateAnd(counts, keep);
  return e.b.CreateSelect(counts, e.b.CreateFMul(gradient, slope), e.number(type, nothing));
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
