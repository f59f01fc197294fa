#include "runtime/cpu/llvm/sum_blocks.h"

#include "runtime/cpu/llvm/expressions.h"

namespace vicinal::cpu {
namespace {

// Chunks of as many vectors as a block has: body(first channel, vectors).
void each_chunk(Emitter& e, std::int64_t width, std::int64_t at_once,
                const std::function<void(Value*, std::int64_t)>& body) {
  const std::int64_t vectors = width / kLanes, whole = vectors / at_once * at_once;
  if (whole > at_once)
    e.loop(e.index(0), e.index(whole * kLanes), at_once * kLanes, {}, [&](Value* first, const Values&) {
      body(first, at_once);
      return Values{};
    });
  else if (whole > 0)
    body(e.index(0), at_once);
  if (whole < vectors) body(e.index(whole * kLanes), vectors - whole);
}

struct Block {
  Values rows;           // addresses of the sums
  std::int64_t vectors;  // of each
  Value* steps;          // of the sum
};
// sums += weight(step, row) * the vectors at columns(step).
void add_block(Emitter& e, const Block& block, const std::function<Value*(Value* step)>& columns,
               const std::function<Value*(Value* step, std::size_t row)>& weight,
               const std::function<void(Value* step)>& meanwhile = nullptr) {
  Values sums;
  for (Value* row : block.rows)
    for (std::int64_t j = 0; j < block.vectors; ++j)
      sums.push_back(e.load(e.vector(e.f32), e.at(e.f32, row, j * kLanes)));
  sums = e.loop(e.index(0), block.steps, 1, sums, [&](Value* step, const Values& carried) {
    Value* const from = columns(step);
    Values vectors, result;
    for (std::int64_t j = 0; j < block.vectors; ++j)
      vectors.push_back(e.load(e.vector(e.f32), e.at(e.f32, from, j * kLanes)));
    if (meanwhile) meanwhile(step);
    for (std::size_t i = 0; i < block.rows.size(); ++i) {
      Value* const by = e.splat(e.load(e.f32, weight(step, i)));
      for (Value* vector : vectors) result.push_back(e.fma(by, vector, carried[result.size()]));
    }
    return result;
  });
  std::size_t n = 0;
  for (Value* row : block.rows)
    for (std::int64_t j = 0; j < block.vectors; ++j) e.store(sums[n++], e.at(e.f32, row, j * kLanes));
}

}  // namespace

llvm::Function* emit_query_sums(Emitter& e, const KernelLayout& layout) {
  llvm::Function* const f =
      e.function("query_sums", e.b.getVoidTy(), {e.ptr, e.ptr, e.i64, e.ptr, e.i64, e.ptr, e.i64});
  Value *const d_scores = f->getArg(0), *const k = f->getArg(1), *const step = f->getArg(2),
               *const d_query = f->getArg(3), *const keys = f->getArg(4), *const next = f->getArg(5),
               *const lines = f->getArg(6);
  Value* const bytes = e.b.CreateMul(lines, e.index(64));
  each_chunk(e, layout.head_channels, layout.block.pv_vectors, [&](Value* first, std::int64_t vectors) {
    Block block{{}, vectors, keys};
    for (std::int64_t i = 0; i < layout.block.pv_queries; ++i)
      block.rows.push_back(e.at(e.f32, e.at(e.f32, d_query, first), i * layout.head_channels));
    add_block(
        e, block, [&](Value* n) { return e.at(e.f32, e.at(e.f32, k, e.b.CreateMul(n, step)), first); },
        [&](Value* n, std::size_t i) {
          return e.at(e.f32, e.at(e.f32, d_scores, e.b.CreateMul(n, e.index(layout.block.unit))),
                      static_cast<std::int64_t>(i));
        },
        [&](Value* n) {
          Value* const line = e.at(e.i8, next, e.b.CreateMul(n, bytes));
          e.prefetch(line);
          e.prefetch(e.at(e.i8, line, e.b.CreateSub(bytes, e.index(64))));
        });
  });
  e.b.CreateRetVoid();
  return f;
}

llvm::Function* emit_key_sums(Emitter& e, const KernelLayout& layout, const char* name, std::int64_t width) {
  llvm::Function* const f = e.function(name, e.b.getVoidTy(), {e.ptr, e.ptr, e.ptr, e.ptr, e.i64});
  Value *const weights = f->getArg(0), *const rows = f->getArg(1), *const sums = f->getArg(2),
               *const sum_row = f->getArg(3), *const queries = f->getArg(4);
  Values to;
  for (std::int64_t i = 0; i < layout.block.pv_queries; ++i)
    to.push_back(e.at(e.f32, sums, e.b.CreateMul(e.load(e.i64, e.at(e.i64, sum_row, i)), e.index(width))));
  each_chunk(e, width, layout.block.pv_vectors, [&](Value* first, std::int64_t vectors) {
    Block block{{}, vectors, queries};
    for (Value* row : to) block.rows.push_back(e.at(e.f32, row, first));
    add_block(
        e, block,
        [&](Value* q) { return e.at(e.f32, e.at(e.f32, rows, e.b.CreateMul(q, e.index(width))), first); },
        [&](Value* q, std::size_t i) {
          return e.at(e.f32, e.at(e.f32, weights, q), static_cast<std::int64_t>(i) * layout.block.unit);
        });
  });
  e.b.CreateRetVoid();
  return f;
}

llvm::Function* emit_exact_sums(Emitter& e, const KernelLayout& layout) {
  llvm::Function* const f = e.function("exact_sums", e.b.getVoidTy(),
                                       {e.ptr, e.ptr, e.ptr, e.i64, e.ptr, e.ptr, e.i64, e.i64, e.i64});
  Value *const weights = f->getArg(0), *const d_scores = f->getArg(1), *const k = f->getArg(2),
               *const step = f->getArg(3), *const query_tile = f->getArg(4), *const sum_row = f->getArg(5),
               *const keys = f->getArg(6), *const unit = f->getArg(7), *const queries = f->getArg(8);
  Value* const workspace = member(e, query_tile, offsetof(QueryTile, workspace), e.ptr);
  Value* const d_keys = member(e, query_tile, offsetof(QueryTile, d_keys), e.ptr);
  Value* const d_values = member(e, query_tile, offsetof(QueryTile, d_values), e.ptr);
  const auto row = [&](Value* base, Value* number, std::int64_t width) {
    return e.at(e.f32, base, e.b.CreateMul(number, e.index(width)));
  };
  // to += weight * from
  const auto add = [&](Value* to, Value* weight, Value* from, std::int64_t width) {
    Value* const by = e.splat(weight);
    e.loop(e.index(0), e.index(width), kLanes, {}, [&](Value* c, const Values&) {
      Value* const at = e.at(e.f32, to, c);
      e.store(e.fma(by, e.load(e.vector(e.f32), e.at(e.f32, from, c)), e.load(e.vector(e.f32), at)), at);
      return Values{};
    });
  };
  e.loop(e.index(0), queries, 1, {}, [&](Value* m, const Values&) {
    Value* const query = e.b.CreateAdd(unit, m);
    const auto of_query = [&](std::int64_t offset, std::int64_t width) {
      return row(e.at(e.f32, workspace, offset), query, width);
    };
    Value* const q = of_query(layout.query_rows, layout.head_channels);
    Value* const d_out = of_query(layout.d_out_rows, layout.channels);
    Value* const d_query = of_query(layout.output, layout.head_channels);
    e.loop(e.index(0), keys, 1, {}, [&](Value* n, const Values&) {
      Value* const offset = e.b.CreateAdd(e.b.CreateMul(n, e.index(layout.block.unit)), m);
      Value* const weight = e.load(e.f32, e.at(e.f32, weights, offset));
      e.when(e.b.CreateICmpNE(e.as_int(weight), e.bits(e.i32, 0x80000000)), [&] {
        Value* const d_score = e.load(e.f32, e.at(e.f32, d_scores, offset));
        Value* const sums = e.load(e.i64, e.at(e.i64, sum_row, n));
        add(row(d_values, sums, layout.channels), weight, d_out, layout.channels);
        // Where a score's slope is 0 nothing goes on, whatever the vectors hold.
        e.when(e.b.CreateICmpNE(e.as_int(d_score), e.bits(e.i32, 0x80000000)), [&] {
          add(row(d_keys, sums, layout.head_channels), d_score, q, layout.head_channels);
          add(d_query, d_score, e.at(e.f32, k, e.b.CreateMul(n, step)), layout.head_channels);
        });
      });
      return Values{};
    });
    return Values{};
  });
  e.b.CreateRetVoid();
  return f;
}

}  // namespace vicinal::cpu
