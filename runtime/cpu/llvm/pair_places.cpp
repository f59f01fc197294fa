#include "runtime/cpu/llvm/pair_places.h"

#include "runtime/cpu/generated_code.h"

namespace vicinal::cpu {
namespace {

using ir::SymbolKind;

// The array of integers a symbol of a query is found in; nothing for other symbols.
std::optional<std::size_t> query_array(const PlaceLayout& places, const ir::Symbol& s) {
  switch (s.kind) {
    case SymbolKind::q: return PlaceLayout::kPosition;
    case SymbolKind::q_index: return PlaceLayout::kIndex;
    case SymbolKind::q_axis: return places.query_coordinate(s.index);
    default: return std::nullopt;
  }
}

Value* query_address(Emitter& e, const KernelLayout& layout, Value* query_tile, std::size_t array,
                     Value* query) {
  Value* const places = member(e, query_tile, offsetof(QueryTile, places), e.ptr);
  return e.at(e.i32, e.at(e.i32, places, static_cast<std::int64_t>(array) * layout.block.tile_q), query);
}

}  // namespace

Value* query_place(Emitter& e, const KernelLayout& layout, Value* query_tile, std::size_t array,
                   Value* query) {
  return e.load(e.vector(e.i32), query_address(e, layout, query_tile, array, query));
}

Expressions::Symbols query_vectors(Emitter& e, const KernelLayout& layout, Value* query_tile, Value* query) {
  return [&e, &layout, query_tile, query](const ir::Symbol& s) -> Value* {
    const auto array = query_array(layout.places, s);
    return array ? query_place(e, layout, query_tile, *array, query) : nullptr;
  };
}

Expressions::Symbols query_scalars(Emitter& e, const KernelLayout& layout, Value* query_tile, Value* query) {
  return [&e, &layout, query_tile, query](const ir::Symbol& s) -> Value* {
    const auto array = query_array(layout.places, s);
    return array ? e.load(e.i32, query_address(e, layout, query_tile, *array, query)) : nullptr;
  };
}

KeyPlaces::KeyPlaces(Emitter& e, const KernelLayout& layout, Value* key_tile, bool context)
    : e_(e), layout_(layout), context_(context) {
  first_ = e.b.CreateTrunc(member(e, key_tile, offsetof(KeyTile, first), e.i64), e.i32);
  step_ = e.b.CreateTrunc(member(e, key_tile, offsetof(KeyTile, step), e.i64), e.i32);
  first_in_group_ = e.b.CreateTrunc(member(e, key_tile, offsetof(KeyTile, first_in_group), e.i64), e.i32);
  places_ = member(e, key_tile, offsetof(KeyTile, places), e.ptr);
}

Value* KeyPlaces::listed_place(std::size_t array, Value* n) const {
  Value* const from = e_.at(e_.i32, places_, static_cast<std::int64_t>(array) * layout_.block.tile_k);
  return e_.load(e_.i32, e_.at(e_.i32, from, n));
}
Value* KeyPlaces::position(Value* n) const {
  if (listed()) return listed_place(PlaceLayout::kPosition, n);
  return e_.b.CreateAdd(first_, e_.b.CreateMul(e_.b.CreateTrunc(n, e_.i32), step_));
}
Value* KeyPlaces::coordinate(std::size_t axis, Value* n) const {
  if (context_) return e_.whole(e_.i32, 0);  // nothing that counts reads it
  return listed() ? listed_place(layout_.places.key_coordinate(axis), n) : position(n);
}
Value* KeyPlaces::in_group(std::size_t axis, Value* n) const {
  if (listed()) return listed_place(layout_.places.key_in_group(axis), n);
  return e_.b.CreateAdd(first_in_group_, e_.b.CreateTrunc(n, e_.i32));
}

Expressions::Symbols KeyPlaces::pair(Value* n, Value* score, const Expressions::Symbols& queries) const {
  return [this, n, score, &queries](const ir::Symbol& s) -> Value* {
    switch (s.kind) {
      case SymbolKind::k: return position(n);
      case SymbolKind::k_axis: return coordinate(s.index, n);
      case SymbolKind::k_context: return e_.whole(e_.i1, context_);
      case SymbolKind::score: return score;
      default: return queries(s);
    }
  };
}

Windows::Windows(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel, Value* query_tile,
                 Value* query)
    : e_(e) {
  for (std::size_t axis = 0; axis < kernel.declarations().axes.size(); ++axis) {
    if (!kernel.windowed(axis)) continue;
    const auto load = [&](std::size_t array) { return query_place(e, layout, query_tile, array, query); };
    windows_.push_back({axis, load(layout.places.window_begin(axis)), load(layout.places.window_size(axis))});
  }
}

Value* Windows::keep(const KeyPlaces& keys, Value* n) const {
  Value* all = nullptr;
  for (const Window& w : windows_) {
    Value* const one =
        e_.b.CreateICmpULT(e_.b.CreateSub(e_.splat(keys.in_group(w.axis, n)), w.begin), w.size);
    all = all == nullptr ? one : e_.b.CreateAnd(all, one);
  }
  return all;
}

}  // namespace vicinal::cpu
