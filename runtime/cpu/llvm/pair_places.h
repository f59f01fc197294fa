// Where queries and keys lie, for the expressions of a pair: positions, coordinates, windows.
#pragma once

#include <optional>

#include "runtime/cpu/llvm/expressions.h"
#include "runtime/cpu/llvm/kernel_layout.h"

namespace vicinal::cpu {

// An array of QueryTile::places, as a vector of the sixteen queries from `query` on.
Value* query_place(Emitter& e, const KernelLayout& layout, Value* query_tile, std::size_t array,
                   Value* query);

// A symbol of a query, as a vector of the sixteen from `query` on.
Expressions::Symbols query_vectors(Emitter& e, const KernelLayout& layout, Value* query_tile, Value* query);
// The same of a single query, as scalars.
Expressions::Symbols query_scalars(Emitter& e, const KernelLayout& layout, Value* query_tile, Value* query);

// The keys of a tile, each by its number in it.
class KeyPlaces {
 public:
  KeyPlaces(Emitter& e, const KernelLayout& layout, Value* key_tile, bool context);

  Value* position(Value* n) const;
  Value* coordinate(std::size_t axis, Value* n) const;
  Value* in_group(std::size_t axis, Value* n) const;
  // What a score or mask reads of the pair of such a key with the queries.
  Expressions::Symbols pair(Value* n, Value* score, const Expressions::Symbols& queries) const;

 private:
  bool listed() const { return !context_ && layout_.places.axes > 1; }
  Value* listed_place(std::size_t array, Value* n) const;

  Emitter& e_;
  const KernelLayout& layout_;
  bool context_;
  Value *first_, *step_, *first_in_group_, *places_;
};

// The windows of sixteen queries along the axes that have one.
class Windows {
 public:
  Windows(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel, Value* query_tile,
          Value* query);

  bool empty() const { return windows_.empty(); }
  // Which queries see the key; null: all.
  Value* keep(const KeyPlaces& keys, Value* n) const;

 private:
  struct Window {
    std::size_t axis;
    Value *begin, *size;
  };

  Emitter& e_;
  std::vector<Window> windows_;
};

}  // namespace vicinal::cpu
