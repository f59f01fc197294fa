// The backward pass of a task: a tile of queries, which adds to the gradients of the keys that it visits.
#include "runtime/cpu/llvm/captured_sums.h"
#include "runtime/cpu/llvm/elementary.h"
#include "runtime/cpu/llvm/kernel.h"
#include "runtime/cpu/llvm/output_gradients.h"
#include "runtime/cpu/llvm/pair_gradients.h"
#include "runtime/cpu/llvm/products.h"
#include "runtime/cpu/llvm/stage.h"
#include "runtime/cpu/llvm/sum_blocks.h"

namespace vicinal::cpu {
namespace {

using ir::NodeId;

class Begin : Stage {
 public:
  using Stage::Stage;

  void run() {
    const DType dtype = kernel_.options.dtype;
    const std::int64_t tile_q = layout_.block.tile_q;
    llvm::Function* const pack_queries =
        emit_pack_rows(e_, "pack_queries", dtype, DType::f32, layout_.head_dim, layout_.head_channels);
    llvm::Function* const pack_gradients =
        emit_pack_rows(e_, "pack_gradients", dtype, DType::f32, layout_.value_dim, layout_.channels);
    const DType out = kernel_.options.output();
    llvm::Function* const pack_outputs = out == dtype ? pack_gradients
                                                      : emit_pack_rows(e_, "pack_outputs", out, DType::f32,
                                                                       layout_.value_dim, layout_.channels);
    llvm::Function* const normalize = kernel_.query_l2norm ? emit_normalize_rows(e_, layout_) : nullptr;
    llvm::Function* const through_output =
        has_output() ? emit_output_gradients(e_, layout_, kernel_) : nullptr;
    llvm::Function* const transpose = emit_transpose();
    query_tile_ = e_.function(kBeginSymbol, e_.b.getVoidTy(), {e_.ptr}, true)->getArg(0);
    const NodeId roots[] = {form().factor};
    Expressions expressions(e_, kernel_, kernel_.grid, query_tile_, roots);
    Value* const scale = expressions.emit(form().factor, nullptr);
    if (kernel_.has_limits()) find_limits();

    Value* const all = e_.index(tile_q);
    const auto pack = [&](llvm::Function* f, std::size_t data, std::size_t dim, std::size_t rows,
                          std::int64_t to) {
      e_.b.CreateCall(f, {query_member(data, e_.ptr), query_member(dim, e_.i64), query_member(rows, e_.ptr),
                          workspace(to), all});
    };
    pack(pack_queries, offsetof(QueryTile, q), offsetof(QueryTile, q_dim), offsetof(QueryTile, q_row),
         layout_.query_rows);
    if (normalize != nullptr) e_.b.CreateCall(normalize, {workspace(layout_.query_rows), all});
    pack(pack_gradients, offsetof(QueryTile, d_out), offsetof(QueryTile, d_out_dim),
         offsetof(QueryTile, d_out_row), layout_.d_out_rows);
    if (softmax_ || has_output())
      pack(pack_outputs, offsetof(QueryTile, out), offsetof(QueryTile, out_dim), offsetof(QueryTile, out_row),
           layout_.out_rows);
    if (has_output()) e_.b.CreateCall(through_output, {query_tile_});
    // A scale whose own gradient is wanted is multiplied with later, since that needs the product before it.
    Value* const one = e_.number(e_.f32, 1);
    e_.b.CreateCall(transpose, {workspace(layout_.query_rows), e_.index(layout_.head_channels),
                                workspace(layout_.queries), scale, kernel_.scale_sum ? one : scale});
    e_.b.CreateCall(transpose, {workspace(layout_.d_out_rows), e_.index(layout_.channels),
                                workspace(layout_.d_out_columns), one, one});
    if (softmax_) share(expressions);
    Value* const zero = e_.number(e_.vector(e_.f32), 0);
    e_.loop(e_.index(0), e_.index((tile_q + layout_.block.pv_queries) * layout_.head_channels), kLanes, {},
            [&](Value* i, const Values&) {
              e_.store(zero, workspace(layout_.output, i));
              return Values{};
            });
    e_.b.CreateRetVoid();
  }

 private:
  bool has_output() const { return form().module.root(ir::Root::output).valid(); }

  // void (float* rows, i64 width, float* columns, float by, float column_by): rows of the tile as columns,
  // multiplied with the second factor; in place with the first. Blocks of sixteen queries and channels.
  llvm::Function* emit_transpose() {
    const std::int64_t tile_q = layout_.block.tile_q;
    llvm::Function* const f =
        e_.function("transpose", e_.b.getVoidTy(), {e_.ptr, e_.i64, e_.ptr, e_.f32, e_.f32});
    Value *const width = f->getArg(1), *const by = e_.splat(f->getArg(3)),
                 *const column_by = e_.splat(f->getArg(4));
    e_.loop(e_.index(0), e_.index(tile_q), kLanes, {}, [&](Value* query, const Values&) {
      e_.loop(e_.index(0), width, kLanes, {}, [&](Value* channel, const Values&) {
        Value* row = e_.at(e_.f32, f->getArg(0), e_.b.CreateAdd(e_.b.CreateMul(query, width), channel));
        Values block;
        for (int i = 0; i < kLanes; ++i) {
          Value* const x = e_.load(e_.vector(e_.f32), row);
          e_.store(e_.b.CreateFMul(x, by), row);
          block.push_back(e_.b.CreateFMul(x, column_by));
          row = e_.at(e_.f32, row, width);
        }
        transpose(block);
        Value* const column =
            e_.at(e_.f32, f->getArg(2), e_.b.CreateAdd(e_.b.CreateMul(channel, e_.index(tile_q)), query));
        for (int i = 0; i < kLanes; ++i)
          e_.store(block[static_cast<std::size_t>(i)], e_.at(e_.f32, column, i * tile_q));
        return Values{};
      });
      return Values{};
    });
    e_.b.CreateRetVoid();
    return f;
  }

  // Swaps every bit of a row's number with that of the lane's.
  void transpose(Values& block) {
    for (int bit = 1; bit < kLanes; bit *= 2) {
      std::vector<int> low, high;
      for (int lane = 0; lane < kLanes; ++lane) {
        const bool second = (lane & bit) != 0;
        low.push_back(second ? kLanes + lane - bit : lane);
        high.push_back(second ? kLanes + lane : lane + bit);
      }
      for (int i = 0; i < kLanes; ++i) {
        if ((i & bit) != 0) continue;
        Value *&x = block[static_cast<std::size_t>(i)], *&y = block[static_cast<std::size_t>(i + bit)];
        Value* const first = e_.b.CreateShuffleVector(x, y, low);
        y = e_.b.CreateShuffleVector(x, y, high);
        x = first;
      }
    }
  }

  // Of every query dLSE - <dO, O>, and the LSE as weights take it; the sum over the sink.
  void share(Expressions& expressions) {
    llvm::Type* const type = e_.vector(e_.f32);
    Value* const count = query_member(offsetof(QueryTile, count), e_.i64);
    Value* const d_lse = query_member(offsetof(QueryTile, d_lse), e_.ptr);
    Value* const minus_infinity = e_.infinity(e_.f32, true);
    Value* const zero = e_.number(e_.f32, 0);
    Value* const totals = query_member(offsetof(QueryTile, totals), e_.ptr);
    e_.loop(e_.index(0), count, 1, {}, [&](Value* query, const Values&) {
      Value* const first = e_.b.CreateMul(query, e_.index(layout_.channels));
      const Values products =
          e_.loop(e_.index(0), e_.index(layout_.channels), kLanes, {e_.number(type, 0)},
                  [&](Value* i, const Values& sum) {
                    Value* const at = e_.b.CreateAdd(first, i);
                    return Values{e_.fma(e_.load(type, workspace(layout_.d_out_rows, at)),
                                         e_.load(type, workspace(layout_.out_rows, at)), sum[0])};
                  });
      Value* of_lse = e_.load(e_.f32, e_.at(e_.f32, d_lse, query));
      if (has_output()) of_lse = e_.b.CreateFAdd(of_lse, e_.load(e_.f32, workspace(layout_.shared, query)));
      Value* const shared = e_.b.CreateFSub(of_lse, sum_of_lanes(e_, products[0]));
      Value* const x = lse_of(query);
      // Any number does where nothing is kept.
      Value* const base = e_.b.CreateSelect(e_.b.CreateFCmpOEQ(x, minus_infinity), zero, x);
      e_.store(shared, workspace(layout_.shared, query));
      e_.store(base, workspace(layout_.lse, query));
      if (!kernel_.sink_sum) return Values{};
      Value* const w = exp_of_weight(e_, e_.b.CreateFSub(sink(expressions), base));
      Value* const counts = e_.b.CreateFCmpUNE(w, zero);
      add_to_double(e_, e_.at(e_.f64, totals, kSinkTotal),
                    e_.b.CreateSelect(counts, e_.b.CreateFMul(w, shared), zero));
      return Values{};
    });
    // Lanes without a query.
    e_.loop_if_any(count, e_.index(layout_.block.tile_q), 1, {}, [&](Value* query, const Values&) {
      e_.store(zero, workspace(layout_.shared, query));
      e_.store(zero, workspace(layout_.lse, query));
      return Values{};
    });
  }
};

class Visit : Stage {
 public:
  using Stage::Stage;

  void run() {
    const emit::CpuKernelOptions& o = kernel_.options;
    const Packers packers = emit_packers();
    llvm::Function* const normalize = kernel_.key_l2norm ? emit_normalize_rows(e_, layout_) : nullptr;
    llvm::Function* const scores = emit_score_block(e_, layout_, "score_block", layout_.head_dim);
    llvm::Function* const d_weights =
        layout_.head_dim == layout_.value_dim
            ? scores
            : emit_score_block(e_, layout_, "d_weight_block", layout_.value_dim);
    llvm::Function* const query_sums = o.exact ? nullptr : emit_query_sums(e_, layout_);
    llvm::Function* const key_sums = o.exact ? emit_exact_sums(e_, layout_)
                                             : emit_key_sums(e_, layout_, "key_sums", layout_.head_channels);
    llvm::Function* const value_sums = o.exact || layout_.channels == layout_.head_channels
                                           ? key_sums
                                           : emit_key_sums(e_, layout_, "value_sums", layout_.channels);
    const ByKind gradients =
        by_kind([&](KeyTileKind kind) { return emit_pair_gradients(e_, layout_, kernel_, kind); });

    const auto [key_tile, kind, keys, k, k_step, v, v_step] = start_visit(packers);
    Value* const queries = query_member(offsetof(QueryTile, count), e_.i64);
    if (normalize != nullptr) e_.b.CreateCall(normalize, {k, keys});
    Value* const sum_rows = member(e_, key_tile, offsetof(KeyTile, sum_row), e_.ptr);

    e_.loop(e_.index(0), queries, layout_.block.unit, {}, [&](Value* unit, const Values&) {
      const auto [first, count] = keys_of_unit(key_tile, unit, kind, keys);
      e_.when(e_.b.CreateICmpSGT(count, e_.index(0)), [&] {
        Value* const from = e_.at(e_.f32, k, e_.b.CreateMul(first, k_step));
        score_blocks(scores, layout_.queries, layout_.scores, unit, from, k_step, count);
        score_blocks(d_weights, layout_.d_out_columns, layout_.d_scores, unit,
                     e_.at(e_.f32, v, e_.b.CreateMul(first, v_step)), v_step, count);
        Value* const end = least(e_.b.CreateAdd(unit, e_.index(layout_.block.unit)), queries);
        e_.loop(unit, end, kLanes, {}, [&](Value* query, const Values&) {
          choose(kind, gradients, {query_tile_, key_tile, query, e_.b.CreateSub(query, unit), first, count});
          return Values{};
        });
        Value* const sum_row = e_.at(e_.i64, sum_rows, first);
        Value* const of_unit = e_.b.CreateSub(end, unit);
        if (o.exact) {
          e_.b.CreateCall(key_sums, {workspace(layout_.scores), workspace(layout_.d_scores), from, k_step,
                                     query_tile_, sum_row, count, unit, of_unit});
          return;
        }
        clear_rows(count);
        sum_keys(value_sums, layout_.scores, layout_.d_out_rows, layout_.channels,
                 offsetof(QueryTile, d_values), sum_row, unit, count, of_unit);
        sum_keys(key_sums, layout_.d_scores, layout_.query_rows, layout_.head_channels,
                 offsetof(QueryTile, d_keys), sum_row, unit, count, of_unit);
        sum_queries(query_sums, key_tile, from, k_step, count, unit, end);
      });
      return Values{};
    });
    e_.b.CreateRetVoid();
  }

 private:
  // Rows after the last key that its block of keys has.
  void clear_rows(Value* count) {
    Value* const zero = e_.number(e_.vector(e_.f32), 0);
    e_.loop(count, e_.b.CreateAdd(count, e_.index(layout_.block.pv_queries)), 1, {},
            [&](Value* n, const Values&) {
              Value* const at = e_.b.CreateMul(n, e_.index(layout_.block.unit));
              for (std::int64_t i = 0; i < layout_.block.unit; i += kLanes)
                for (const std::int64_t array : {layout_.scores, layout_.d_scores})
                  e_.store(zero, workspace(array + i, at));
              return Values{};
            });
  }

  void sum_keys(llvm::Function* key_sums, std::int64_t weights, std::int64_t rows, std::int64_t width,
                std::size_t sums, Value* sum_row, Value* unit, Value* count, Value* queries) {
    Value* const to = query_member(sums, e_.ptr);
    Value* const from = workspace(rows, e_.b.CreateMul(unit, e_.index(width)));
    Value* const weight = workspace(weights);
    e_.loop(e_.index(0), count, layout_.block.pv_queries, {}, [&](Value* n, const Values&) {
      e_.b.CreateCall(key_sums, {e_.at(e_.f32, weight, e_.b.CreateMul(n, e_.index(layout_.block.unit))), from,
                                 to, e_.at(e_.i64, sum_row, n), queries});
      return Values{};
    });
  }

  // Blocks of queries; each fetches a part of what the next tile reads, so that the whole touches it once.
  void sum_queries(llvm::Function* query_sums, Value* key_tile, Value* k, Value* k_step, Value* keys,
                   Value* unit, Value* end) {
    const std::int64_t blocks = layout_.block.tile_q / layout_.block.pv_queries;
    const std::int64_t k_lines = layout_.head_channels / kLanes, v_lines = layout_.channels / kLanes;
    const std::int64_t lines = std::min<std::int64_t>(2, (2 * (k_lines + v_lines) + blocks - 1) / blocks);
    struct Part {
      std::size_t next;
      std::int64_t lines;
    };
    const Part parts[] = {{offsetof(KeyTile, next_k), k_lines},
                          {offsetof(KeyTile, next_v), v_lines},
                          {offsetof(KeyTile, next_d_keys), k_lines},
                          {offsetof(KeyTile, next_d_values), v_lines}};
    Value* const line = e_.b.CreateMul(keys, e_.index(64));
    e_.loop(unit, end, layout_.block.pv_queries, {}, [&](Value* query, const Values&) {
      Value* const number = e_.small_quotient(query, layout_.block.pv_queries);
      // Of all lines of a key the first of this block's.
      Value* const at = e_.b.CreateMul(number, e_.index(lines));
      Value* next = nullptr;
      std::int64_t before = 0;
      for (const Part& part : parts) {
        Value* const inside = e_.b.CreateMul(e_.b.CreateSub(at, e_.index(before)), line);
        Value* const address = e_.at(e_.i8, member(e_, key_tile, part.next, e_.ptr), inside);
        next = next == nullptr ? address
                               : e_.b.CreateSelect(e_.b.CreateICmpSGE(at, e_.index(before)), address, next);
        before += part.lines;
      }
      e_.b.CreateCall(query_sums,
                      {workspace(layout_.d_scores, e_.b.CreateSub(query, unit)), k, k_step,
                       workspace(layout_.output, e_.b.CreateMul(query, e_.index(layout_.head_channels))),
                       keys, next, e_.index(lines)});
      return Values{};
    });
  }
};

class End : Stage {
 public:
  using Stage::Stage;

  void run() {
    llvm::Function* const f = e_.function(kEndSymbol, e_.i32, {e_.ptr}, true);
    query_tile_ = f->getArg(0);
    const NodeId roots[] = {form().factor};
    Expressions expressions(e_, kernel_, kernel_.grid, query_tile_, roots);
    Value* const scale = e_.as_vector(expressions.emit(form().factor, nullptr));
    Value* const to = query_member(offsetof(QueryTile, d_query), e_.ptr);
    Value* const floats =
        e_.b.CreateMul(query_member(offsetof(QueryTile, count), e_.i64), e_.index(layout_.head_channels));
    llvm::Type* const type = e_.vector(e_.f32);
    Value* const zero = e_.number(type, 0);
    // x * 0 is 0 for finite x alone.
    const Values check = e_.loop(e_.index(0), floats, kLanes, {zero}, [&](Value* i, const Values& so_far) {
      Value* const x = e_.load(type, workspace(layout_.output, i));
      e_.store(e_.b.CreateFMul(x, scale), e_.at(e_.f32, to, i));
      return Values{e_.fma(x, zero, so_far[0])};
    });
    Value* const wrong = e_.b.CreateFCmpUNE(check[0], zero);
    e_.b.CreateRet(e_.b.CreateZExt(e_.b.CreateBitCast(wrong, e_.i16), e_.i32));
  }
};

}  // namespace

void emit_backward_begin(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel) {
  Begin(e, layout, kernel).run();
}
void emit_backward_visit(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel) {
  Visit(e, layout, kernel).run();
}
void emit_backward_end(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel) {
  End(e, layout, kernel).run();
}

}  // namespace vicinal::cpu
