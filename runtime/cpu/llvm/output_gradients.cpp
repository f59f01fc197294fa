#include "runtime/cpu/llvm/output_gradients.h"

#include "runtime/cpu/llvm/captured_sums.h"
#include "runtime/cpu/llvm/stage.h"

namespace vicinal::cpu {
namespace {

using ir::NodeId;
using ir::Root;
using ir::SymbolKind;

class OutputGradients : Stage {
 public:
  OutputGradients(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel)
      : Stage(e, layout, kernel), captured_(e, kernel, false, Root::output) {
    const ir::Module& m = form().module;
    for (const ir::Partial& p : m.partials) {
      const auto* s = std::get_if<ir::Symbol>(&m[p.leaf].what);
      if (p.of != Root::output || s == nullptr) continue;
      if (s->kind == SymbolKind::out) by_out_ = p.value;
      if (s->kind == SymbolKind::lse) by_lse_ = p.value;
    }
  }

  llvm::Function* run() {
    llvm::Function* const f = e_.function("output_gradients", e_.b.getVoidTy(), {e_.ptr});
    query_tile_ = f->getArg(0);
    std::vector<NodeId> roots = {by_out_, by_lse_};
    captured_.add_roots(roots);
    expressions_.emplace(e_, kernel_, kernel_.grid, query_tile_, roots);
    captured_.start(*expressions_, query_tile_, nullptr);
    const Expressions::Mark mark = expressions_->mark();
    e_.loop(e_.index(0), query_member(offsetof(QueryTile, count), e_.i64), 1, {},
            [&](Value* query, const Values&) {
              row(query);
              expressions_->forget(mark);
              return Values{};
            });
    e_.b.CreateRetVoid();
    return f;
  }

 private:
  void row(Value* query) {
    const Expressions::Symbols of_query = query_scalars(e_, layout_, query_tile_, query);
    Value* const lse = softmax_ ? lse_of(query) : nullptr;
    Value* const first = e_.b.CreateMul(query, e_.index(layout_.channels));
    const std::int64_t whole = layout_.value_dim / kLanes * kLanes;
    // What is read gets its sums over channels, and last the LSE.
    Values sums = captured_.zeros();
    sums.push_back(e_.number(e_.vector(e_.f32), 0));
    const auto channels = [&](Value* from, Value* keep, const Values& so_far) {
      return some_channels(e_.b.CreateAdd(first, from), lse, keep, of_query, so_far);
    };
    sums = e_.loop_if_any(e_.index(0), e_.index(whole), kLanes, sums,
                          [&](Value* from, const Values& so_far) { return channels(from, nullptr, so_far); });
    if (whole < layout_.value_dim) {
      Value* const width = e_.whole(e_.vector(e_.i32), layout_.value_dim - whole);
      sums = channels(e_.index(whole), e_.b.CreateICmpSLT(e_.lane_numbers(), width), sums);
    }
    e_.store(sum_of_lanes(e_, sums.back()), workspace(layout_.shared, query));
    sums.pop_back();
    captured_.finish(sums, of_query);
  }

  // Sixteen channels at an offset in rows of the tile.
  Values some_channels(Value* at, Value* lse, Value* keep, const Expressions::Symbols& of_query,
                       const Values& so_far) {
    llvm::Type* const type = e_.vector(e_.f32);
    Value* const out = e_.load(type, workspace(layout_.out_rows, at));
    Value* const d_result = e_.load(type, workspace(layout_.d_out_rows, at));
    const Expressions::Symbols symbols = [&](const ir::Symbol& s) -> Value* {
      if (s.kind == SymbolKind::out) return out;
      if (s.kind == SymbolKind::lse) return lse;
      return of_query(s);
    };
    const Expressions::Mark mark = expressions_->mark();
    const auto through = [&](NodeId slope) -> Value* {
      if (!slope.valid()) return e_.number(type, 0);
      return times_slope(e_, d_result, e_.as_vector(expressions_->emit(slope, symbols)), keep);
    };
    Values next = captured_.add({so_far.begin(), so_far.begin() + captured_.size()}, d_result, keep, symbols);
    next.push_back(e_.b.CreateFAdd(so_far.back(), through(by_lse_)));
    e_.store(through(by_out_), workspace(layout_.d_out_rows, at));
    expressions_->forget(mark);
    return next;
  }

  CapturedSums captured_;
  NodeId by_out_, by_lse_;
  std::optional<Expressions> expressions_;
};

}  // namespace

llvm::Function* emit_output_gradients(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel) {
  return OutputGradients(e, layout, kernel).run();
}

}  // namespace vicinal::cpu
