#include "runtime/cpu/llvm/matrices.h"

#include <llvm/IR/IntrinsicsX86.h>

#include <array>

#include "runtime/cpu/llvm/products.h"

namespace vicinal::cpu {
namespace {

using ID = llvm::Intrinsic::ID;

// The operations on registers, which are known by number.
class Registers {
 public:
  explicit Registers(Emitter& e) : e_(e) {}

  void configure() {
    std::array<std::uint8_t, 64> shape{};
    shape[0] = 1;  // the palette
    for (std::size_t i = 0; i < 8; ++i) {
      shape[16 + 2 * i] = 64;
      shape[48 + i] = kMatrixRows;
    }
    Value* const table = e_.table("matrix_shapes", llvm::ConstantDataArray::get(e_.b.getContext(), shape));
    emit(llvm::Intrinsic::x86_ldtilecfg, "vicinal_matrix_configure", {table});
  }
  void release() { emit(llvm::Intrinsic::x86_tilerelease, "vicinal_matrix_release", {}); }
  void clear(int to) { emit(llvm::Intrinsic::x86_tilezero, "vicinal_matrix_clear", {number(to)}); }
  // Rows of 64 bytes, `step` words apart.
  void load(int to, Value* from, Value* step) {
    emit(llvm::Intrinsic::x86_tileloadd64, "vicinal_matrix_load", {number(to), from, bytes(step)});
  }
  void store(int from, Value* to, Value* step) {
    emit(llvm::Intrinsic::x86_tilestored64, "vicinal_matrix_store", {number(from), to, bytes(step)});
  }
  void multiply_add(int sum, int left, int right) {
    emit(llvm::Intrinsic::x86_tdpbf16ps, "vicinal_matrix_multiply_add",
         {number(sum), number(left), number(right)});
  }

 private:
  Value* number(int i) { return e_.whole(e_.i8, i); }
  Value* bytes(Value* words) { return e_.b.CreateShl(words, e_.index(2)); }

  void emit(ID instruction, const char* emulated, const Values& operands) {
    if (e_.target().matrices != CpuTarget::Matrices::emulated) {
      e_.b.CreateIntrinsic(instruction, {}, operands);
      return;
    }
    std::vector<llvm::Type*> types;
    for (Value* x : operands) types.push_back(x->getType());
    e_.b.CreateCall(
        e_.module().getOrInsertFunction(emulated, llvm::FunctionType::get(e_.b.getVoidTy(), types, false)),
        operands);
  }

  Emitter& e_;
};

// Of a block: sums in registers 0 to 3, then up to two left operands and two right ones.
constexpr int sum_number(int row, int column) {
  return 2 * row + column;
}
constexpr int kLeft = 4, kRight = 6;

// Rows and columns of registers in a block's sums.
struct BlockShape {
  int rows, columns;

  template <class F>
  void each(F f) const {
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < columns; ++j) f(i, j);
  }
};

// A step of a block's product, from the first rows of both operands on.
void multiply_add(Emitter& e, Registers& registers, BlockShape shape, Value* left, Value* left_step,
                  Value* right, Value* right_step) {
  for (int i = 0; i < shape.rows; ++i) {
    Value* const rows = e.b.CreateMul(left_step, e.index(i * kMatrixRows));
    registers.load(kLeft + i, e.at(e.f32, left, rows), left_step);
  }
  for (int j = 0; j < shape.columns; ++j)
    registers.load(kRight + j, e.at(e.f32, right, j * kLanes), right_step);
  shape.each([&](int i, int j) { registers.multiply_add(sum_number(i, j), kLeft + i, kRight + j); });
}

}  // namespace

void configure_matrices(Emitter& e) {
  Registers(e).configure();
}
void release_matrices(Emitter& e) {
  Registers(e).release();
}

llvm::Function* emit_transpose(Emitter& e) {
  if (llvm::Function* const emitted = e.module().getFunction("transpose")) return emitted;
  llvm::Function* const f = e.function("transpose", e.b.getVoidTy(), {e.ptr, e.i64, e.ptr, e.i64});
  const auto row = [&](unsigned base, int i) {
    return e.at(e.f32, f->getArg(base), e.b.CreateMul(f->getArg(base + 1), e.index(i)));
  };
  Values rows;
  for (int i = 0; i < kLanes; ++i) rows.push_back(e.load(e.vector(e.f32), row(0, i)));
  // Of blocks of 1, 2, 4 and 8 the two that do not lie on the diagonal change places.
  for (int size = 1; size < kLanes; size *= 2) {
    std::vector<std::uint32_t> lanes;
    for (const int second : {0, size})
      for (int lane = 0; lane < kLanes; ++lane)
        lanes.push_back(
            static_cast<std::uint32_t>((lane & size) != 0 ? kLanes + lane - size + second : lane + second));
    Value* const table =
        e.table("lanes_" + std::to_string(size), llvm::ConstantDataArray::get(e.b.getContext(), lanes));
    Value* const first = e.load(e.vector(e.i32), table);
    Value* const second = e.load(e.vector(e.i32), e.at(e.i32, table, kLanes));
    const auto permuted = [&](Value* x, Value* by, Value* y) {
      return e.b.CreateIntrinsic(llvm::Intrinsic::x86_avx512_vpermi2var_ps_512, {}, {x, by, y});
    };
    for (int i = 0; i < kLanes; ++i) {
      if ((i & size) != 0) continue;
      Value *&x = rows[static_cast<std::size_t>(i)], *&y = rows[static_cast<std::size_t>(i + size)];
      Value* const upper = permuted(x, first, y);
      y = permuted(x, second, y);
      x = upper;
    }
  }
  for (int i = 0; i < kLanes; ++i) e.store(rows[static_cast<std::size_t>(i)], row(2, i));
  e.b.CreateRetVoid();
  return f;
}

llvm::Function* emit_pack_value_matrices(Emitter& e, const KernelLayout& layout) {
  llvm::Function* const pack = emit_pack_value_pairs(e, layout);
  llvm::Function* const transpose = emit_transpose(e);
  llvm::Function* const f =
      e.function("pack_value_matrices", e.b.getVoidTy(), {e.ptr, e.i64, e.ptr, e.ptr, e.i64});
  Value *const out = f->getArg(3), *const count = f->getArg(4);
  Value* const pairs = e.at(e.f32, out, layout.value_pairs - layout.values);
  e.b.CreateCall(pack, {f->getArg(0), f->getArg(1), f->getArg(2), pairs, count});
  const auto words = [&](Value* keys) {
    return e.b.CreateMul(e.b.CreateLShr(keys, e.index(1)), e.index(layout.channels));
  };
  Value* const end = words(e.round_up(count, kMatrixDepth));
  e.loop_if_any(words(e.round_up(count, 2)), end, kLanes, {}, [&](Value* i, const Values&) {
    e.store(e.number(e.vector(e.f32), 0), e.at(e.f32, pairs, i));
    return Values{};
  });
  const std::int64_t block = kMatrixRows * layout.channels;
  e.loop_if_any(e.index(0), end, block, {}, [&](Value* first, const Values&) {
    e.loop(e.index(0), e.index(layout.channels), kLanes, {}, [&](Value* channel, const Values&) {
      Value* const to = e.b.CreateMul(channel, e.index(kLanes));
      e.b.CreateCall(transpose, {e.at(e.f32, pairs, e.b.CreateAdd(first, channel)), e.index(layout.channels),
                                 e.at(e.f32, out, e.b.CreateAdd(first, to)), e.index(kLanes)});
      return Values{};
    });
    return Values{};
  });
  e.b.CreateRetVoid();
  return f;
}

llvm::Function* emit_score_matrices(Emitter& e, const KernelLayout& layout) {
  llvm::Function* const f =
      e.function("score_matrices", e.b.getVoidTy(), {e.ptr, e.i64, e.i64, e.ptr, e.ptr});
  Value *const k = f->getArg(0), *const step = f->getArg(1), *const queries = f->getArg(3),
               *const scores = f->getArg(4);
  Value *const tile_q = e.index(layout.block.tile_q), *const unit = e.index(layout.block.unit);
  const BlockShape shape{layout.block.qk_keys / kMatrixRows, layout.block.qk_vectors};
  Registers registers(e);
  shape.each([&](int i, int j) { registers.clear(sum_number(i, j)); });
  e.loop(e.index(0), e.index(layout.head_channels / 2), kLanes, {}, [&](Value* word, const Values&) {
    multiply_add(e, registers, shape, e.at(e.f32, k, word), step,
                 e.at(e.f32, queries, e.b.CreateMul(word, tile_q)), tile_q);
    return Values{};
  });
  shape.each([&](int i, int j) {
    const std::int64_t at = i * kMatrixRows * layout.block.unit + j * kLanes;
    registers.store(sum_number(i, j), e.at(e.f32, scores, at), unit);
  });
  e.b.CreateRetVoid();
  return f;
}

llvm::Function* emit_value_matrices(Emitter& e, const KernelLayout& layout) {
  llvm::Function* const f =
      e.function("value_matrices", e.b.getVoidTy(), {e.ptr, e.ptr, e.i64, e.ptr, e.ptr, e.i64, e.ptr});
  Value *const weights = f->getArg(0), *const v = f->getArg(1), *const output = f->getArg(3),
               *const rescale = f->getArg(4), *const pairs = f->getArg(5);
  Value *const tile_q = e.index(layout.block.tile_q), *const unit = e.index(layout.block.unit);
  const int columns = layout.block.pv_queries / kLanes;
  llvm::Type* const type = e.vector(e.f32);
  for (int j = 0; j < columns; ++j) {
    Value* const by = e.load(type, e.at(e.f32, rescale, j * kLanes));
    Value* const changes = e.b.CreateBitCast(e.b.CreateFCmpUNE(by, e.number(type, 1)), e.i16);
    e.when(e.b.CreateICmpNE(changes, e.whole(e.i16, 0)), [&] {
      e.loop(e.index(0), e.index(layout.channels), 1, {}, [&](Value* channel, const Values&) {
        Value* const row = e.at(e.f32, e.at(e.f32, output, e.b.CreateMul(channel, tile_q)), j * kLanes);
        e.store(e.b.CreateFMul(by, e.load(type, row)), row);
        return Values{};
      });
    });
  }
  Registers registers(e);
  const auto chunk = [&](Value* first, int rows) {
    const BlockShape shape{rows, columns};
    const auto sum = [&](int i, int j) {
      Value* const row = e.at(e.f32, output, e.b.CreateMul(first, tile_q));
      return e.at(e.f32, row, i * kMatrixRows * layout.block.tile_q + j * kLanes);
    };
    shape.each([&](int i, int j) { registers.load(sum_number(i, j), sum(i, j), tile_q); });
    Value* const from = e.at(e.f32, v, e.b.CreateMul(first, e.index(kLanes)));
    e.loop(e.index(0), pairs, kMatrixRows, {}, [&](Value* pair, const Values&) {
      multiply_add(e, registers, shape, e.at(e.f32, from, e.b.CreateMul(pair, e.index(layout.channels))),
                   e.index(kLanes), e.at(e.f32, weights, e.b.CreateMul(pair, unit)), unit);
      return Values{};
    });
    shape.each([&](int i, int j) { registers.store(sum_number(i, j), sum(i, j), tile_q); });
  };
  constexpr std::int64_t kAtOnce = 2 * kMatrixRows;
  const std::int64_t whole = layout.channels / kAtOnce * kAtOnce;
  e.loop_if_any(e.index(0), e.index(whole), kAtOnce, {}, [&](Value* first, const Values&) {
    chunk(first, 2);
    return Values{};
  });
  if (whole < layout.channels) chunk(e.index(whole), 1);
  e.b.CreateRetVoid();
  return f;
}

}  // namespace vicinal::cpu
