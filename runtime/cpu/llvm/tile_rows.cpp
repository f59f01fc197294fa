// Where a visit reads its keys and values.
#include "runtime/cpu/llvm/kernel.h"
#include "runtime/cpu/llvm/matrices.h"
#include "runtime/cpu/llvm/products.h"
#include "runtime/cpu/llvm/stage.h"

namespace vicinal::cpu {

Stage::Packers Stage::emit_packers() {
  const DType dtype = kernel_.options.dtype;
  const auto rows = [&](const char* name, DType as, std::int64_t dim, std::int64_t width) {
    return emit_pack_rows(e_, name, dtype, as, dim, width);
  };
  if (layout_.block.per_word == 2)
    return {
        rows("pack_keys", dtype, layout_.head_dim, layout_.head_channels),
        layout_.block.matrices ? emit_pack_value_matrices(e_, layout_) : emit_pack_value_pairs(e_, layout_)};
  const bool alike = layout_.head_dim == layout_.value_dim && layout_.head_channels == layout_.channels;
  llvm::Function* const keys = rows("pack_keys", DType::f32, layout_.head_dim, layout_.head_channels);
  return {keys, alike ? keys : rows("pack_values", DType::f32, layout_.value_dim, layout_.channels)};
}

Stage::KeyRows Stage::start_visit(const Packers& packers) {
  llvm::Function* const f = e_.function(kVisitSymbol, e_.b.getVoidTy(), {e_.ptr, e_.ptr}, true);
  query_tile_ = f->getArg(0);
  Value* const tile = f->getArg(1);
  const auto key_member = [&](std::size_t byte, llvm::Type* type) { return member(e_, tile, byte, type); };
  Value* const direct = key_member(offsetof(KeyTile, direct), e_.i64);
  Value* const keys = key_member(offsetof(KeyTile, count), e_.i64);
  // The first row, and the step from row to row, in words.
  const auto rows = [&](std::int64_t bit, llvm::Function* pack, std::size_t data, std::size_t dim,
                        std::size_t row, std::size_t step, std::int64_t to, std::int64_t width) {
    Value* const in_place = e_.b.CreateICmpNE(e_.b.CreateAnd(direct, e_.index(bit)), e_.index(0));
    Value* const tensor = key_member(data, e_.ptr);
    Value* const packed = workspace(to);
    e_.when(e_.b.CreateNot(in_place), [&] {
      e_.b.CreateCall(pack, {tensor, key_member(dim, e_.i64), key_member(row, e_.ptr), packed, keys});
    });
    return std::pair(e_.b.CreateSelect(in_place, tensor, packed),
                     e_.b.CreateSelect(in_place, key_member(step, e_.i64), e_.index(width)));
  };
  if (layout_.block.per_word == 2) {
    // Channels side by side are pairs as they lie.
    Value* in_place = e_.b.CreateICmpNE(e_.b.CreateAnd(direct, e_.index(kPairedKeys)), e_.index(0));
    if (layout_.block.matrices) {
      // All that a block reads must be there: its keys, and their rows as long as a matrix has them.
      Value* const rest = e_.b.CreateAnd(keys, e_.index(layout_.block.qk_keys - 1));
      in_place = layout_.head_dim == layout_.head_channels
                     ? e_.b.CreateAnd(in_place, e_.b.CreateICmpEQ(rest, e_.index(0)))
                     : e_.whole(e_.i1, 0);
    }
    Value *const k = key_member(offsetof(KeyTile, k), e_.ptr),
                 *const k_row = key_member(offsetof(KeyTile, k_row), e_.ptr),
                 *const packed_keys = workspace(layout_.keys), *const values = workspace(layout_.values);
    e_.when(e_.b.CreateNot(in_place), [&] {
      e_.b.CreateCall(packers.keys,
                      {k, key_member(offsetof(KeyTile, k_dim), e_.i64), k_row, packed_keys, keys});
    });
    e_.b.CreateCall(packers.values,
                    {key_member(offsetof(KeyTile, v), e_.ptr), key_member(offsetof(KeyTile, v_dim), e_.i64),
                     key_member(offsetof(KeyTile, v_row), e_.ptr), values, keys});
    Value* const step = e_.b.CreateAShr(key_member(offsetof(KeyTile, k_step), e_.i64), e_.index(1));
    return {tile,
            key_member(offsetof(KeyTile, kind), e_.i64),
            keys,
            e_.b.CreateSelect(in_place, e_.at(e_.i16, k, e_.load(e_.i64, k_row)), packed_keys),
            e_.b.CreateSelect(in_place, step, e_.index(layout_.head_channels / 2)),
            values,
            e_.index(layout_.channels)};
  }
  const auto [k, k_step] =
      rows(kDirectKeys, packers.keys, offsetof(KeyTile, k), offsetof(KeyTile, k_dim),
           offsetof(KeyTile, k_row), offsetof(KeyTile, k_step), layout_.keys, layout_.head_channels);
  const auto [v, v_step] =
      rows(kDirectValues, packers.values, offsetof(KeyTile, v), offsetof(KeyTile, v_dim),
           offsetof(KeyTile, v_row), offsetof(KeyTile, v_step), layout_.values, layout_.channels);
  return {tile, key_member(offsetof(KeyTile, kind), e_.i64), keys, k, k_step, v, v_step};
}

}  // namespace vicinal::cpu
