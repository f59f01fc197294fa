// The start of a task: queries transposed and scaled, the keys that they see, and sums that are empty but for
// the sink.
#include "runtime/cpu/llvm/kernel.h"
#include "runtime/cpu/llvm/matrices.h"
#include "runtime/cpu/llvm/products.h"
#include "runtime/cpu/llvm/stage.h"

namespace vicinal::cpu {
namespace {

using ir::NodeId;

class Begin : Stage {
 public:
  using Stage::Stage;

  void run() {
    const std::int64_t tile_q = layout_.block.tile_q;
    llvm::Function* const pack = emit_pack_queries(e_, layout_, kernel_.options.dtype);
    query_tile_ = e_.function(kBeginSymbol, e_.b.getVoidTy(), {e_.ptr}, true)->getArg(0);
    const NodeId shift = kernel_.has_sink ? form().shift : NodeId{};
    const NodeId roots[] = {form().factor, shift};
    Expressions expressions(e_, kernel_, kernel_.grid, query_tile_, roots);

    Value* scale = e_.number(e_.f32, 1);
    if (is_plain_product(kernel_, layout_) && form().factor.valid())
      scale = expressions.emit(form().factor, nullptr);
    if (kernel_.has_limits()) find_limits();
    if (layout_.block.matrices) configure_matrices(e_);
    Value* const one = e_.number(e_.f32, 1);
    const std::int64_t at_once = layout_.block.unit;
    Value* const q = query_member(offsetof(QueryTile, q), e_.ptr);
    Value* const q_dim = query_member(offsetof(QueryTile, q_dim), e_.i64);
    Value* const rows = query_member(offsetof(QueryTile, q_row), e_.ptr);
    e_.loop(e_.index(0), query_member(offsetof(QueryTile, count), e_.i64), at_once, {},
            [&](Value* unit, const Values&) {
              e_.b.CreateCall(pack, {q, q_dim, e_.at(e_.i64, rows, unit), workspace(layout_.queries, unit),
                                     kernel_.query_l2norm ? one : scale});
              return Values{};
            });
    const Expressions::Mark mark = expressions.mark();
    each_group(at_once, [&](Value* query) {
      if (kernel_.query_l2norm) normalize(workspace(layout_.queries, query), scale);
      llvm::Type* const type = e_.vector(e_.f32);
      Value* maximum = e_.infinity(type, true);
      Value* sum = e_.number(type, 0);
      if (kernel_.has_sink) {
        const Expressions::Symbols symbols = query_vectors(e_, layout_, query_tile_, query);
        Value* x = sink(expressions);
        if (shift.valid())
          x = e_.b.CreateFSub(e_.as_vector(x), e_.as_vector(expressions.emit(shift, symbols)));
        maximum = e_.as_vector(x);
        sum =
            e_.b.CreateSelect(e_.b.CreateFCmpOEQ(maximum, e_.infinity(type, true)), sum, e_.number(type, 1));
        expressions.forget(mark);
      }
      e_.store(maximum, workspace(layout_.maximum, query));
      e_.store(sum, workspace(layout_.sum, query));
      e_.store(e_.number(type, 1), workspace(layout_.rescale, query));
    });
    Value* const zero = e_.number(e_.vector(e_.f32), 0);
    e_.loop(e_.index(0), e_.index((tile_q + layout_.block.pv_queries) * layout_.channels), kLanes, {},
            [&](Value* i, const Values&) {
              e_.store(zero, workspace(layout_.output, i));
              return Values{};
            });
    e_.b.CreateRetVoid();
  }

 private:
  // Sixteen packed queries, divided by their norms.
  void normalize(Value* queries, Value* scale) {
    llvm::Type* const type = e_.vector(e_.f32);
    const auto address = [&](Value* channel) {
      return e_.at(e_.f32, queries, e_.b.CreateMul(channel, e_.index(layout_.block.tile_q)));
    };
    llvm::Type* const wide = e_.vector(e_.f64);
    const Values squares = e_.loop(e_.index(0), e_.index(layout_.head_dim), 1, {e_.number(wide, 0)},
                                   [&](Value* channel, const Values& sum) {
                                     Value* const x = e_.b.CreateFPExt(e_.load(type, address(channel)), wide);
                                     return Values{e_.fma(x, x, sum[0])};
                                   });
    Value* const factor =
        e_.b.CreateFMul(e_.splat(e_.b.CreateFPExt(scale, e_.f64)), inverse_norm(e_, squares[0]));
    Value* const by = e_.b.CreateFPTrunc(factor, type);
    e_.loop(e_.index(0), e_.index(layout_.head_dim), 1, {}, [&](Value* channel, const Values&) {
      e_.store(e_.b.CreateFMul(e_.load(type, address(channel)), by), address(channel));
      return Values{};
    });
  }
};

}  // namespace

void emit_begin(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel) {
  Begin(e, layout, kernel).run();
}

}  // namespace vicinal::cpu
