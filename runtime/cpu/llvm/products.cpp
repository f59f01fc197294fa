#include "runtime/cpu/llvm/products.h"

#include <llvm/IR/IntrinsicsX86.h>

#include "runtime/cpu/llvm/elements.h"

namespace vicinal::cpu {
namespace {

// One element of a row, anywhere, as it lies in memory.
Value* scattered(Emitter& e, DType dtype, Value* base, Value* row, Value* dim_stride, Value* i) {
  Value* const offset = e.b.CreateAdd(row, e.b.CreateMul(i, dim_stride));
  llvm::Type* const memory = memory_type(e, dtype);
  return e.load(memory, e.at(memory, base, offset));
}

// What is loaded of one type and stored as another, f32 or the same.
Value* converted(Emitter& e, DType from, DType to, Value* x) {
  return from == to ? x : from_memory(e, from, ir::Type::real, x);
}

// Of two vectors the first elements, the second ones, ...
std::vector<int> side_by_side() {
  std::vector<int> lanes;
  for (int i = 0; i < kLanes; ++i) lanes.insert(lanes.end(), {i, kLanes + i});
  return lanes;
}

// Two elements as a word.
Value* word_of(Emitter& e, Value* low, Value* high) {
  return e.b.CreateOr(e.b.CreateZExt(low, e.i32),
                      e.b.CreateShl(e.b.CreateZExt(high, e.i32), e.whole(e.i32, 16)));
}

// Words of a step of a product, vectors that are typed as f32, times each other and added to f32.
Value* multiply_add(Emitter& e, const KernelLayout& layout, Value* x, Value* y, Value* sum) {
  if (layout.block.per_word == 1) return e.fma(x, y, sum);
  llvm::Type* const pairs = e.vector(e.b.getBFloatTy(), 2 * kLanes);
  return e.b.CreateIntrinsic(llvm::Intrinsic::x86_avx512bf16_dpbf16ps_512, {},
                             {sum, e.b.CreateBitCast(x, pairs), e.b.CreateBitCast(y, pairs)});
}

// Emits the rest of a function: body(number, row, 1 / its norm as a double) for each of `count` packed rows.
void each_inverse_norm(Emitter& e, const KernelLayout& layout, Value* rows, Value* count,
                       const std::function<void(Value* n, Value* row, Value* inverse)>& body) {
  e.loop(e.index(0), count, 1, {}, [&](Value* n, const Values&) {
    Value* const row = e.at(e.f32, rows, e.b.CreateMul(n, e.index(layout.head_channels)));
    const Values squares = e.loop(e.index(0), e.index(layout.head_dim), 1, {e.number(e.f64, 0)},
                                  [&](Value* i, const Values& sum) {
                                    Value* const x = e.load(e.f32, e.at(e.f32, row, i));
                                    Value* const wide = e.b.CreateFPExt(x, e.f64);
                                    return Values{e.fma(wide, wide, sum[0])};
                                  });
    body(n, row, inverse_norm(e, squares[0]));
    return Values{};
  });
  e.b.CreateRetVoid();
}

}  // namespace

llvm::Function* emit_pack_queries(Emitter& e, const KernelLayout& layout, DType dtype) {
  llvm::Function* const f = e.function("pack_queries", e.b.getVoidTy(), {e.ptr, e.i64, e.ptr, e.ptr, e.f32});
  Value *const q = f->getArg(0), *const dim_stride = f->getArg(1), *const rows = f->getArg(2),
               *const out = f->getArg(3), *const scale = f->getArg(4);
  // Shuffles would do this in fewer instructions, and take longer to compile than they save.
  e.loop(e.index(0), e.index(layout.block.unit), 1, {}, [&](Value* query, const Values&) {
    Value* const row = e.load(e.i64, e.at(e.i64, rows, query));
    Value* const to = e.at(e.f32, out, query);
    const auto element = [&](Value* channel) { return scattered(e, dtype, q, row, dim_stride, channel); };
    const int per_word = layout.block.per_word;
    e.loop(e.index(0), e.index(layout.head_dim / per_word), 1, {}, [&](Value* i, const Values&) {
      Value* word = nullptr;
      if (per_word == 1) {
        word = e.b.CreateFMul(converted(e, dtype, DType::f32, element(i)), scale);
      } else {
        Value* const channel = e.b.CreateShl(i, e.index(1));
        word = word_of(e, element(channel), element(e.b.CreateAdd(channel, e.index(1))));
      }
      e.store(word, e.at(e.f32, to, e.b.CreateMul(i, e.index(layout.block.tile_q))));
      return Values{};
    });
    if (layout.block.matrices && layout.head_dim < layout.head_channels)
      e.loop(e.index(layout.head_dim / 2), e.index(layout.head_channels / 2), 1, {},
             [&](Value* i, const Values&) {
               e.store(e.number(e.f32, 0), e.at(e.f32, to, e.b.CreateMul(i, e.index(layout.block.tile_q))));
               return Values{};
             });
    return Values{};
  });
  e.b.CreateRetVoid();
  return f;
}

llvm::Function* emit_pack_rows(Emitter& e, const char* name, DType dtype, DType as, std::int64_t dim,
                               std::int64_t width) {
  llvm::Function* const f = e.function(name, e.b.getVoidTy(), {e.ptr, e.i64, e.ptr, e.ptr, e.i64});
  Value *const x = f->getArg(0), *const dim_stride = f->getArg(1), *const rows = f->getArg(2),
               *const out = f->getArg(3), *const count = f->getArg(4);
  llvm::Type *const memory = memory_type(e, dtype), *const packed = memory_type(e, as);
  const std::int64_t whole = dim / kLanes * kLanes;
  e.loop_if_any(e.index(0), count, 1, {}, [&](Value* n, const Values&) {
    Value* const row = e.load(e.i64, e.at(e.i64, rows, n));
    Value* const to = e.at(packed, out, e.b.CreateMul(n, e.index(width)));
    e.when(
        e.b.CreateICmpEQ(dim_stride, e.index(1)),
        [&] {
          Value* const from = e.at(memory, x, row);
          const auto copy = [&](Value* i, int lanes = kLanes) {
            Value* const elements = e.load(e.vector(memory, lanes), e.at(memory, from, i));
            e.store(converted(e, dtype, as, elements), e.at(packed, to, i));
          };
          if (whole <= 8 * kLanes)
            for (std::int64_t i = 0; i < whole; i += kLanes) copy(e.index(i));
          else
            e.loop(e.index(0), e.index(whole), kLanes, {}, [&](Value* i, const Values&) {
              copy(i);
              return Values{};
            });
          if (whole < dim) copy(e.index(whole), static_cast<int>(dim - whole));
        },
        [&] {
          e.loop(e.index(0), e.index(dim), 1, {}, [&](Value* i, const Values&) {
            Value* const element = scattered(e, dtype, x, row, dim_stride, i);
            e.store(converted(e, dtype, as, element), e.at(packed, to, i));
            return Values{};
          });
        });
    if (dim < width)
      e.store(llvm::Constant::getNullValue(e.vector(packed, static_cast<int>(width - dim))),
              e.at(packed, to, dim));
    return Values{};
  });
  e.b.CreateRetVoid();
  return f;
}

llvm::Function* emit_pack_value_pairs(Emitter& e, const KernelLayout& layout) {
  llvm::Function* const f =
      e.function("pack_value_pairs", e.b.getVoidTy(), {e.ptr, e.i64, e.ptr, e.ptr, e.i64});
  Value *const x = f->getArg(0), *const dim_stride = f->getArg(1), *const rows = f->getArg(2),
               *const out = f->getArg(3), *const count = f->getArg(4);
  e.loop_if_any(e.index(0), count, 2, {}, [&](Value* n, const Values&) {
    // A row that is alone is read twice, and counts once.
    Value* const next = e.b.CreateAdd(n, e.index(1));
    Value* const alone = e.b.CreateICmpEQ(next, count);
    Value* const kept = e.b.CreateSelect(alone, e.whole(e.i16, 0), e.whole(e.i16, -1));
    Value* const first = e.load(e.i64, e.at(e.i64, rows, n));
    Value* const second = e.load(e.i64, e.at(e.i64, rows, e.b.CreateSelect(alone, n, next)));
    Value* const to =
        e.at(e.f32, out, e.b.CreateMul(e.b.CreateLShr(n, e.index(1)), e.index(layout.channels)));
    e.when(
        e.b.CreateICmpEQ(dim_stride, e.index(1)),
        [&] {
          const auto channels = [&](Value* row, Value* i, int width) {
            Value* const part = e.load(e.vector(e.i16, width), e.at(e.i16, e.at(e.i16, x, row), i));
            if (width == kLanes) return part;
            std::vector<int> lanes;
            for (int lane = 0; lane < kLanes; ++lane) lanes.push_back(std::min(lane, width));
            return e.b.CreateShuffleVector(part, llvm::Constant::getNullValue(part->getType()), lanes);
          };
          const auto pair = [&](Value* i, int width = kLanes) {
            Value* const low = channels(first, i, width);
            Value* const high = e.b.CreateAnd(channels(second, i, width), e.splat(kept));
            e.store(e.b.CreateShuffleVector(low, high, side_by_side()), e.at(e.f32, to, i));
          };
          const std::int64_t whole = layout.value_dim / kLanes * kLanes;
          e.loop_if_any(e.index(0), e.index(whole), kLanes, {}, [&](Value* i, const Values&) {
            pair(i);
            return Values{};
          });
          if (whole < layout.value_dim) pair(e.index(whole), static_cast<int>(layout.value_dim - whole));
        },
        [&] {
          e.loop(e.index(0), e.index(layout.value_dim), 1, {}, [&](Value* i, const Values&) {
            Value* const low = scattered(e, DType::bf16, x, first, dim_stride, i);
            Value* const high = scattered(e, DType::bf16, x, second, dim_stride, i);
            e.store(word_of(e, low, e.b.CreateAnd(high, kept)), e.at(e.f32, to, i));
            return Values{};
          });
          if (const std::int64_t rest = layout.channels - layout.value_dim; rest != 0)
            e.store(llvm::Constant::getNullValue(e.vector(e.f32, static_cast<int>(rest))),
                    e.at(e.f32, to, layout.value_dim));
        });
    return Values{};
  });
  e.b.CreateRetVoid();
  return f;
}

Value* pairs_of(Emitter& e, Value* first, Value* second) {
  Value* const halves =
      e.b.CreateIntrinsic(llvm::Intrinsic::x86_avx512bf16_cvtne2ps2bf16_512, {}, {second, first});
  return e.b.CreateBitCast(e.b.CreateShuffleVector(halves, side_by_side()), e.vector(e.f32));
}

Value* inverse_norm(Emitter& e, Value* squares) {
  llvm::Type* const type = squares->getType();
  Value* const norm = e.larger(e.number(type, 1e-12), e.unary(llvm::Intrinsic::sqrt, squares));
  return e.b.CreateFDiv(e.number(type, 1), norm);
}

llvm::Function* emit_inverse_norms(Emitter& e, const KernelLayout& layout) {
  llvm::Function* const f = e.function("inverse_norms", e.b.getVoidTy(), {e.ptr, e.ptr, e.i64});
  each_inverse_norm(e, layout, f->getArg(0), f->getArg(2), [&](Value* n, Value*, Value* inverse) {
    e.store(e.b.CreateFPTrunc(inverse, e.f32), e.at(e.f32, f->getArg(1), n));
  });
  return f;
}

llvm::Function* emit_normalize_rows(Emitter& e, const KernelLayout& layout) {
  llvm::Function* const f = e.function("normalize_rows", e.b.getVoidTy(), {e.ptr, e.i64});
  each_inverse_norm(e, layout, f->getArg(0), f->getArg(1), [&](Value*, Value* row, Value* inverse) {
    e.loop(e.index(0), e.index(layout.head_dim), 1, {}, [&](Value* i, const Values&) {
      Value* const at = e.at(e.f32, row, i);
      Value* const x = e.b.CreateFMul(e.b.CreateFPExt(e.load(e.f32, at), e.f64), inverse);
      e.store(e.b.CreateFPTrunc(x, e.f32), at);
      return Values{};
    });
  });
  return f;
}

llvm::Function* emit_score_block(Emitter& e, const KernelLayout& layout, const char* name,
                                 std::int64_t depth) {
  llvm::Function* const f = e.function(name, e.b.getVoidTy(), {e.ptr, e.i64, e.i64, e.ptr, e.ptr});
  Value *const k = f->getArg(0), *const step = f->getArg(1), *const last = f->getArg(2),
               *const queries = f->getArg(3), *const scores = f->getArg(4);
  const int keys = layout.block.qk_keys, vectors = layout.block.qk_vectors;
  const std::int64_t tile_q = layout.block.tile_q;
  Values rows;
  for (int i = 0; i < keys; ++i) {
    Value* const row = e.b.CreateBinaryIntrinsic(llvm::Intrinsic::smin, e.index(i), last);
    rows.push_back(e.at(e.f32, k, e.b.CreateMul(row, step)));
  }
  const Values zeros(static_cast<std::size_t>(keys * vectors), e.number(e.vector(e.f32), 0));
  Value* const words = e.index(depth / layout.block.per_word);
  const Values sums = e.loop(e.index(0), words, 1, zeros, [&](Value* i, const Values& carried) {
    Value* const channel = e.at(e.f32, queries, e.b.CreateMul(i, e.index(tile_q)));
    Values columns, next;
    for (int j = 0; j < vectors; ++j)
      columns.push_back(e.load(e.vector(e.f32), e.at(e.f32, channel, j * kLanes)));
    for (Value* row : rows) {
      Value* const element = e.splat(e.load(e.f32, e.at(e.f32, row, i)));
      for (Value* column : columns)
        next.push_back(multiply_add(e, layout, element, column, carried[next.size()]));
    }
    return next;
  });
  for (int i = 0; i < keys; ++i)
    for (int j = 0; j < vectors; ++j)
      e.store(sums[static_cast<std::size_t>(i * vectors + j)],
              e.at(e.f32, scores, i * layout.block.unit + j * kLanes));
  e.b.CreateRetVoid();
  return f;
}

llvm::Function* emit_value_block(Emitter& e, const KernelLayout& layout) {
  llvm::Function* const f =
      e.function("value_block", e.b.getVoidTy(), {e.ptr, e.ptr, e.i64, e.ptr, e.ptr, e.i64, e.ptr});
  Value *const weights = f->getArg(0), *const v = f->getArg(1), *const step = f->getArg(2),
               *const output = f->getArg(3), *const rescale = f->getArg(4), *const rows = f->getArg(5),
               *const next = f->getArg(6);
  const std::int64_t queries = layout.block.pv_queries;
  // Vectors of channels from `first` on.
  const auto chunk = [&](Value* first, std::int64_t vectors, bool fetches) {
    Values sums;
    const auto row = [&](std::int64_t i, std::int64_t j) {
      return e.at(e.f32, e.at(e.f32, output, first), i * layout.channels + j * kLanes);
    };
    for (std::int64_t i = 0; i < queries; ++i) {
      Value* const by = e.splat(e.load(e.f32, e.at(e.f32, rescale, i)));
      for (std::int64_t j = 0; j < vectors; ++j)
        sums.push_back(e.b.CreateFMul(by, e.load(e.vector(e.f32), row(i, j))));
    }
    sums = e.loop(e.index(0), rows, 1, sums, [&](Value* n, const Values& carried) {
      Value* const values = e.at(e.f32, e.at(e.f32, v, e.b.CreateMul(n, step)), first);
      Value* const by_query = e.at(e.f32, weights, e.b.CreateMul(n, e.index(layout.block.unit)));
      Values columns, result;
      for (std::int64_t j = 0; j < vectors; ++j)
        columns.push_back(e.load(e.vector(e.f32), e.at(e.f32, values, j * kLanes)));
      if (fetches) e.prefetch(e.at(e.i8, next, e.b.CreateMul(n, e.index(64))));
      for (std::int64_t i = 0; i < queries; ++i) {
        Value* const weight = e.splat(e.load(e.f32, e.at(e.f32, by_query, i)));
        for (Value* column : columns)
          result.push_back(multiply_add(e, layout, weight, column, carried[result.size()]));
      }
      return result;
    });
    for (std::int64_t i = 0; i < queries; ++i)
      for (std::int64_t j = 0; j < vectors; ++j)
        e.store(sums[static_cast<std::size_t>(i * vectors + j)], row(i, j));
  };
  const std::int64_t vectors = layout.channels / kLanes, at_once = layout.block.pv_vectors;
  const std::int64_t whole = vectors / at_once * at_once;
  if (whole > at_once)
    e.loop(e.index(0), e.index(whole * kLanes), at_once * kLanes, {}, [&](Value* first, const Values&) {
      chunk(first, at_once, true);
      return Values{};
    });
  else
    chunk(e.index(0), at_once, true);
  if (whole < vectors) chunk(e.index(whole * kLanes), vectors - whole, false);
  e.b.CreateRetVoid();
  return f;
}

llvm::Function* emit_exact_values(Emitter& e, const KernelLayout& layout) {
  llvm::Function* const f =
      e.function("exact_values", e.b.getVoidTy(), {e.ptr, e.ptr, e.i64, e.ptr, e.ptr, e.i64, e.i64});
  Value *const weights = f->getArg(0), *const v = f->getArg(1), *const step = f->getArg(2),
               *const output = f->getArg(3), *const rescale = f->getArg(4), *const keys = f->getArg(5),
               *const queries = f->getArg(6);
  e.loop(e.index(0), queries, 1, {}, [&](Value* m, const Values&) {
    Value* const row = e.at(e.f32, output, e.b.CreateMul(m, e.index(layout.channels)));
    Value* const by = e.splat(e.load(e.f32, e.at(e.f32, rescale, m)));
    const auto each_vector = [&](const std::function<void(Value*, Value*)>& body) {
      e.loop(e.index(0), e.index(layout.channels), kLanes, {}, [&](Value* channel, const Values&) {
        body(channel, e.at(e.f32, row, channel));
        return Values{};
      });
    };
    each_vector([&](Value*, Value* address) {
      e.store(e.b.CreateFMul(by, e.load(e.vector(e.f32), address)), address);
    });
    e.loop(e.index(0), keys, 1, {}, [&](Value* n, const Values&) {
      Value* const offset = e.b.CreateAdd(e.b.CreateMul(n, e.index(layout.block.unit)), m);
      Value* const weight = e.load(e.f32, e.at(e.f32, weights, offset));
      Value* const kept = e.b.CreateICmpNE(e.as_int(weight), e.bits(e.i32, 0x80000000));
      e.when(kept, [&] {
        Value* const values = e.at(e.f32, v, e.b.CreateMul(n, step));
        each_vector([&](Value* channel, Value* address) {
          Value* const x = e.load(e.vector(e.f32), e.at(e.f32, values, channel));
          e.store(e.fma(e.splat(weight), x, e.load(e.vector(e.f32), address)), address);
        });
      });
      return Values{};
    });
    return Values{};
  });
  e.b.CreateRetVoid();
  return f;
}

double emit_fma_burst(Emitter& e, const char* name) {
  // Vectors of the registers' width; as many sums as two units keep in flight for an operation's duration.
  const int lanes = e.target().vector_bits / 32;
  constexpr std::size_t kSums = 12;
  llvm::Function* const f = e.function(name, e.f32, {e.i64}, true);
  llvm::Type* const type = e.vector(e.f32, lanes);
  // From an argument, so that nothing is known of them.
  Value* const x = e.splat(e.b.CreateUIToFP(f->getArg(0), e.f32), lanes);
  Values sums = e.loop(e.index(0), f->getArg(0), 1, Values(kSums, e.number(type, 0)),
                       [&](Value*, const Values& carried) {
                         Values next;
                         for (Value* sum : carried) next.push_back(e.fma(x, x, sum));
                         return next;
                       });
  // Different in nothing, they would be one sum to an optimizer, of which code generation has none.
  for (std::size_t i = 1; i < sums.size(); ++i) sums[0] = e.b.CreateFAdd(sums[0], sums[i]);
  e.b.CreateRet(e.b.CreateExtractElement(sums[0], std::uint64_t{0}));
  return 2.0 * lanes * static_cast<double>(kSums);
}

}  // namespace vicinal::cpu
