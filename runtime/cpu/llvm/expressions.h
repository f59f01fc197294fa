// Emits expressions of a module: a value that is the same for all lanes stays a scalar, the rest are vectors.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <tuple>

#include "compiler/emit/cpu/cpu_kernel.h"
#include "runtime/cpu/llvm/emitter.h"

namespace vicinal::cpu {

class Expressions {
 public:
  // What a symbol is where an expression stands: scalar or vector.
  using Symbols = std::function<Value*(const ir::Symbol&)>;

  // `query_tile`: the QueryTile that uniforms and inputs are read from. Stands before all loops that emit()
  // is called in. All arguments must outlive it.
  Expressions(Emitter& e, const emit::CpuKernel& kernel, const emit::CpuKeys& keys, Value* query_tile,
              std::span<const ir::NodeId> roots);

  // Emits all that changes neither with the key nor with the score, so that loops over keys find it done.
  void hoist(const Symbols& symbols);
  // A root, or what a root is made of. Remembered until the next forget().
  Value* emit(ir::NodeId node, const Symbols& symbols);

  // Where a site's gradient is in QueryTile::gradients, as an offset from what gradient_data() gives; a
  // scalar unless an index is a vector. Stands after load_gradient(), which stands before all loops.
  void load_gradient(const emit::CpuSite& site);
  Value* gradient_offset(const emit::CpuSite& site, const Symbols& symbols);
  Value* gradient_data(const emit::CpuSite& site);

  // Of a Dot's site the elements of its other input, by which the gradient goes to as many elements;
  // likewise.
  struct Factors {
    DType dtype;
    Value *data, *offset, *step, *count;
  };
  Factors factors(const emit::CpuSite& site, const Symbols& symbols);

  Value* uniform(std::size_t slot, ir::Type type);

  // What has been emitted so far; going back to it forgets the rest, as at the end of a loop's body.
  using Mark = Values;
  const Mark& mark() const { return values_; }
  void forget(Mark mark) { values_ = std::move(mark); }

 private:
  Value* node(std::uint32_t n, const Symbols& symbols);
  Value* apply(const ir::Node& node, ir::Op op);
  Value* element(std::uint32_t input, ir::Type type, Value* offset);
  // Which tensors strides are of: the inputs, or their gradients.
  enum class Of { inputs, gradients };
  Value* offset(std::uint32_t n, const emit::InputRead& read, Of of = Of::inputs);
  Value* last_member(std::uint32_t input, std::size_t array);
  Value* dot(std::uint32_t n, const ir::Dot& d);
  void load_members(std::uint32_t input);
  // A member of an input, emitted once.
  Value* member(std::uint32_t input, std::size_t byte, llvm::Type* type, Of of = Of::inputs);

  Emitter& e_;
  const emit::CpuKernel& kernel_;
  const emit::CpuKeys& keys_;
  const ir::Module& module_;
  Value* query_tile_;
  std::vector<std::uint8_t> varies_;
  std::vector<bool> wanted_;  // by node: part of a root, and not of a uniform
  Values values_;             // by node
  std::map<std::tuple<Of, std::uint32_t, std::size_t>, Value*> members_;
};

// A member of a struct whose members are eight bytes each.
Value* member(Emitter& e, Value* record, std::size_t byte, llvm::Type* type);

}  // namespace vicinal::cpu
