// The end of a task: the output divided by the sums, changed as the spec has it, and stored; the LSE.
#include "runtime/cpu/llvm/elementary.h"
#include "runtime/cpu/llvm/elements.h"
#include "runtime/cpu/llvm/kernel.h"
#include "runtime/cpu/llvm/matrices.h"
#include "runtime/cpu/llvm/stage.h"

namespace vicinal::cpu {
namespace {

using ir::NodeId;

class End : Stage {
 public:
  using Stage::Stage;

  void run() {
    llvm::Function* const transpose = layout_.block.matrices ? emit_transpose(e_) : nullptr;
    llvm::Function* const f = e_.function(kEndSymbol, e_.i32, {e_.ptr}, true);
    query_tile_ = f->getArg(0);
    if (layout_.block.matrices) release_matrices(e_);
    if (softmax_) finish_sums();
    const NodeId output = form().module.root(ir::Root::output);
    const NodeId roots[] = {output};
    Expressions expressions(e_, kernel_, kernel_.grid, query_tile_, roots);
    const DType dtype = kernel_.options.output();
    llvm::Type* const memory = memory_type(e_, dtype);
    llvm::Type* const type = e_.vector(e_.f32);
    Value* const out = query_member(offsetof(QueryTile, out), e_.ptr);
    Value* const out_dim = query_member(offsetof(QueryTile, out_dim), e_.i64);
    Value* const contiguous = e_.b.CreateICmpEQ(out_dim, e_.index(1));
    Value* const count = query_member(offsetof(QueryTile, count), e_.i64);
    Value* const zero = e_.number(type, 0);
    // x * 0 is 0 for finite x alone.
    const Values checked = e_.loop(e_.index(0), count, 1, {zero}, [&](Value* query, const Values& so_far) {
      Value* const inverse =
          softmax_ ? e_.load(e_.f32, workspace(layout_.inverse, query)) : e_.number(e_.f32, 1);
      Value* const lse = softmax_ ? e_.load(e_.f32, workspace(layout_.lse, query)) : e_.number(e_.f32, 0);
      Value* const row =
          e_.load(e_.i64, e_.at(e_.i64, query_member(offsetof(QueryTile, out_row), e_.ptr), query));
      Value* const from = transpose != nullptr ? row_of(transpose, query) : output_of(query);
      const Expressions::Symbols of_query = query_scalars(e_, layout_, query_tile_, query);
      const auto channels = [&](Value* first, int width, Value* check) {
        Value* x = e_.load(type, e_.at(e_.f32, from, first));
        check = e_.fma(x, zero, check);
        x = e_.b.CreateFMul(x, e_.splat(inverse));
        if (output.valid()) {
          const Expressions::Mark mark = expressions.mark();
          x = e_.as_vector(expressions.emit(output, [&](const ir::Symbol& s) -> Value* {
            if (s.kind == ir::SymbolKind::out) return x;
            if (s.kind == ir::SymbolKind::lse) return lse;
            return of_query(s);
          }));
          expressions.forget(mark);
        }
        store_channels(to_memory(e_, dtype, x), memory, out, row, out_dim, contiguous, first, width);
        return check;
      };
      const std::int64_t whole = layout_.value_dim / kLanes * kLanes;
      Value* check = e_.loop_if_any(e_.index(0), e_.index(whole), kLanes, {so_far[0]},
                                    [&](Value* first, const Values& carried) {
                                      return Values{channels(first, kLanes, carried[0])};
                                    })[0];
      if (whole < layout_.value_dim)
        check = channels(e_.index(whole), static_cast<int>(layout_.value_dim - whole), check);
      if (softmax_) store_lse(query, lse);
      return Values{check};
    });
    Value* const wrong = e_.b.CreateFCmpUNE(checked[0], zero);
    e_.b.CreateRet(e_.b.CreateZExt(e_.b.CreateBitCast(wrong, e_.i16), e_.i32));
  }

 private:
  // Of an output whose queries are columns, which become rows sixteen at a time.
  Value* row_of(llvm::Function* transpose, Value* query) {
    Value* const number = e_.b.CreateAnd(query, e_.index(kLanes - 1));
    e_.when(e_.b.CreateICmpEQ(number, e_.index(0)), [&] {
      e_.loop(e_.index(0), e_.index(layout_.channels), kLanes, {}, [&](Value* channel, const Values&) {
        Value* const tile_q = e_.index(layout_.block.tile_q);
        e_.b.CreateCall(transpose, {e_.at(e_.f32, output_of(query), e_.b.CreateMul(channel, tile_q)), tile_q,
                                    workspace(layout_.output_rows, channel), e_.index(layout_.channels)});
        return Values{};
      });
    });
    return workspace(layout_.output_rows, e_.b.CreateMul(number, e_.index(layout_.channels)));
  }

  void store_channels(Value* x, llvm::Type* memory, Value* out, Value* row, Value* out_dim, Value* contiguous,
                      Value* first, int width) {
    e_.when(
        contiguous,
        [&] {
          Value* part = x;
          if (width < kLanes) {
            std::vector<int> lanes;
            for (int i = 0; i < width; ++i) lanes.push_back(i);
            part = e_.b.CreateShuffleVector(x, lanes);
          }
          e_.store(part, e_.at(memory, e_.at(memory, out, row), first));
        },
        [&] {
          e_.loop(e_.index(0), e_.index(width), 1, {}, [&](Value* i, const Values&) {
            Value* const channel = e_.b.CreateMul(out_dim, e_.b.CreateAdd(first, i));
            e_.store(e_.b.CreateExtractElement(x, i), e_.at(memory, out, e_.b.CreateAdd(row, channel)));
            return Values{};
          });
        });
  }

  void store_lse(Value* query, Value* lse) {
    Value* const to = query_member(offsetof(QueryTile, lse), e_.ptr);
    e_.when(e_.b.CreateICmpNE(to, llvm::ConstantPointerNull::get(e_.b.getPtrTy())), [&] {
      Value* const rows = query_member(offsetof(QueryTile, lse_row), e_.ptr);
      e_.store(lse, e_.at(e_.f32, to, e_.load(e_.i64, e_.at(e_.i64, rows, query))));
    });
  }

  // Of every query 1 / sum, 0 where nothing was kept, and the LSE with what the exponents left out.
  void finish_sums() {
    const NodeId roots[] = {form().shift};
    Expressions expressions(e_, kernel_, kernel_.grid, query_tile_, roots);
    const Expressions::Mark mark = expressions.mark();
    llvm::Type* const type = e_.vector(e_.f32);
    each_group(kLanes, [&](Value* query) {
      Value* const sum = e_.load(type, workspace(layout_.sum, query));
      Value* const zero = e_.number(type, 0);
      Value* const inverse =
          e_.b.CreateSelect(e_.b.CreateFCmpOEQ(sum, zero), zero, e_.b.CreateFDiv(e_.number(type, 1), sum));
      e_.store(inverse, workspace(layout_.inverse, query));
      Value* const maximum = e_.load(type, workspace(layout_.maximum, query));
      Value *const logarithm = log(e_, sum), *lse = e_.b.CreateFAdd(maximum, logarithm);
      if (form().shift.valid()) {
        const Expressions::Symbols symbols = query_vectors(e_, layout_, query_tile_, query);
        Value* const shift = e_.as_vector(expressions.emit(form().shift, symbols));
        // First to the maximum, of which it may be the opposite: later it would leave their sum's rounding.
        lse = e_.b.CreateFAdd(e_.b.CreateFAdd(maximum, shift), logarithm);
        if (kernel_.has_sink) {
          // Where the sink is all there is, the shift that was taken from it would leave its rounding.
          Value* const whole = e_.as_vector(sink(expressions));
          Value* const alone = e_.b.CreateAnd(e_.b.CreateFCmpOEQ(maximum, e_.b.CreateFSub(whole, shift)),
                                              e_.b.CreateFCmpOEQ(sum, e_.number(type, 1)));
          lse = e_.b.CreateSelect(alone, whole, lse);
        }
        expressions.forget(mark);
      }
      e_.store(lse, workspace(layout_.lse, query));
    });
  }
};

}  // namespace

void emit_end(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel) {
  End(e, layout, kernel).run();
}

}  // namespace vicinal::cpu
