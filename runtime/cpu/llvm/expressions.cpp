#include "runtime/cpu/llvm/expressions.h"

#include <limits>

#include "compiler/support/match.h"
#include "runtime/cpu/generated_code.h"
#include "runtime/cpu/llvm/elements.h"
#include "runtime/cpu/llvm/operations.h"

namespace vicinal::cpu {

using ir::NodeId;

Value* member(Emitter& e, Value* record, std::size_t byte, llvm::Type* type) {
  return e.load(type, e.at(e.i8, record, static_cast<std::int64_t>(byte)));
}

Expressions::Expressions(Emitter& e, const emit::CpuKernel& kernel, const emit::CpuKeys& keys,
                         Value* query_tile, std::span<const NodeId> roots)
    : e_(e),
      kernel_(kernel),
      keys_(keys),
      module_(keys.form.module),
      query_tile_(query_tile),
      varies_(ir::variance(module_)),
      wanted_(module_.size()),
      values_(module_.size()) {
  for (const NodeId root : roots)
    if (root.valid()) wanted_[root.value] = true;
  for (std::size_t n = wanted_.size(); n-- > 0;)
    if (wanted_[n] && keys_.uniform[n] == emit::kNotUniform)
      for (const NodeId operand : module_.nodes()[n].operands) wanted_[operand.value] = true;
  for (std::size_t n = 0; n < wanted_.size(); ++n) {
    if (!wanted_[n] || keys_.uniform[n] != emit::kNotUniform) continue;
    const ir::Node& node = module_.nodes()[n];
    if (const auto* load = std::get_if<ir::Load>(&node.what)) load_members(load->input);
    if (const auto* dot = std::get_if<ir::Dot>(&node.what))
      load_members(dot->first), load_members(dot->second);
  }
}

// What is known of an input is loaded before any loop, where every later use finds it.
void Expressions::load_members(std::uint32_t input) {
  member(input, offsetof(CodeInput, data), e_.ptr);
  for (std::size_t d = 0; d < module_.inputs[input].dims.size(); ++d)
    for (const std::size_t array : {offsetof(CodeInput, stride), offsetof(CodeInput, extent)})
      member(input, array + 8 * d, e_.i64);
}

void Expressions::hoist(const Symbols& symbols) {
  constexpr int kPair = ir::kKey | ir::kScore | ir::kOutput;
  for (std::uint32_t n = 0; n < wanted_.size(); ++n) {
    if (!wanted_[n]) continue;
    if ((varies_[n] & kPair) == 0) values_[n] = this->node(n, symbols);
  }
}

Value* Expressions::emit(NodeId id, const Symbols& symbols) {
  // Operands stand before their users; those of a uniform are never asked for.
  std::vector<bool> needed(id.value + 1);
  needed[id.value] = true;
  for (std::uint32_t n = id.value + 1; n-- > 0;)
    if (needed[n] && values_[n] == nullptr && keys_.uniform[n] == emit::kNotUniform)
      for (const NodeId operand : module_.nodes()[n].operands) needed[operand.value] = true;
  for (std::uint32_t n = 0; n <= id.value; ++n)
    if (needed[n] && values_[n] == nullptr) values_[n] = node(n, symbols);
  return values_[id.value];
}

Value* Expressions::node(std::uint32_t n, const Symbols& symbols) {
  const ir::Node& node = module_.nodes()[n];
  if (keys_.uniform[n] != emit::kNotUniform) return uniform(keys_.uniform[n], node.type);
  return support::match(
      node.what,
      [&](const ir::Constant& c) -> Value* {
        switch (c.type) {
          case ir::Type::integer: return e_.bits(e_.i32, c.bits);
          case ir::Type::real: return e_.b.CreateBitCast(e_.bits(e_.i32, c.bits), e_.f32);
          case ir::Type::boolean: return e_.whole(e_.i1, c.bits);
        }
        return nullptr;
      },
      [&](const ir::Symbol& s) { return symbols(s); }, [&](const ir::Apply& a) { return apply(node, a.op); },
      [&](const ir::Load& l) { return element(l.input, node.type, offset(n, emit::read_of(node, false))); },
      [&](const ir::Dot& d) { return dot(n, d); });
}

Value* Expressions::apply(const ir::Node& node, ir::Op op) {
  Value* operands[ir::kMaxArity];
  bool vector = false;
  for (std::size_t i = 0; i < node.operands.size(); ++i) {
    operands[i] = values_[node.operands[i].value];
    vector = vector || Emitter::is_vector(operands[i]);
  }
  if (vector)
    for (std::size_t i = 0; i < node.operands.size(); ++i) operands[i] = e_.as_vector(operands[i]);
  return operation(e_, op, std::span(operands, node.operands.size()));
}

Value* Expressions::uniform(std::size_t slot, ir::Type type) {
  Value* const all = cpu::member(e_, query_tile_, offsetof(QueryTile, uniforms), e_.ptr);
  Value* const address = e_.at(e_.i32, all, static_cast<std::int64_t>(slot));
  if (type == ir::Type::real) return e_.load(e_.f32, address);
  Value* const bits = e_.load(e_.i32, address);
  return type == ir::Type::integer ? bits : e_.b.CreateICmpNE(bits, e_.whole(e_.i32, 0));
}

Value* Expressions::member(std::uint32_t input, std::size_t byte, llvm::Type* type, Of of) {
  Value*& known = members_[{of, input, byte}];
  if (known == nullptr) {
    const std::size_t tensors =
        of == Of::inputs ? offsetof(QueryTile, inputs) : offsetof(QueryTile, gradients);
    Value* const all = cpu::member(e_, query_tile_, tensors, e_.ptr);
    known = cpu::member(e_, all, input * sizeof(CodeInput) + byte, type);
  }
  return known;
}

// The element's offset: a scalar unless one of the operands is a vector. Indices that may lie outside of
// their dimension are clamped into it.
Value* Expressions::offset(std::uint32_t n, const emit::InputRead& read, Of of) {
  const ir::Node& node = module_.nodes()[n];
  const std::uint32_t input = read.input;
  Value* scalar = nullptr;
  Value* vector = nullptr;
  for (std::size_t i = read.first; i < read.last; ++i) {
    const std::size_t dimension = i - read.first;
    Value* index = values_[node.operands[i].value];
    if ((keys_.bounds.clamp[n] >> i & 1) != 0) {
      Value* const extent = member(input, offsetof(CodeInput, extent) + 8 * dimension, e_.i64);
      Value* const end = e_.b.CreateBinaryIntrinsic(llvm::Intrinsic::smin, extent,
                                                    e_.index(std::numeric_limits<std::int32_t>::max()));
      Value* last_index = e_.b.CreateTrunc(e_.b.CreateSub(end, e_.index(1)), e_.i32);
      if (Emitter::is_vector(index)) last_index = e_.splat(last_index);
      index = e_.b.CreateBinaryIntrinsic(llvm::Intrinsic::smin, index, last_index);
      index = e_.b.CreateBinaryIntrinsic(llvm::Intrinsic::smax, index, e_.whole(index->getType(), 0));
    }
    Value* stride = member(input, offsetof(CodeInput, stride) + 8 * dimension, e_.i64, of);
    if (Emitter::is_vector(index)) stride = e_.splat(stride);
    Value*& sum = Emitter::is_vector(index) ? vector : scalar;
    Value* const product = e_.b.CreateMul(e_.b.CreateSExt(index, stride->getType()), stride);
    sum = sum == nullptr ? product : e_.b.CreateAdd(sum, product);
  }
  if (vector == nullptr) return scalar == nullptr ? e_.index(0) : scalar;
  return scalar == nullptr ? vector : e_.b.CreateAdd(vector, e_.splat(scalar));
}

void Expressions::load_gradient(const emit::CpuSite& site) {
  const ir::Node& leaf = module_[site.leaf];
  const std::uint32_t input = emit::read_of(leaf, site.second).input;
  load_members(input);
  if (std::holds_alternative<ir::Dot>(leaf.what)) load_members(emit::read_of(leaf, !site.second).input);
  gradient_data(site);
  for (std::size_t d = 0; d < module_.inputs[input].dims.size(); ++d)
    member(input, offsetof(CodeInput, stride) + 8 * d, e_.i64, Of::gradients);
}

Value* Expressions::gradient_offset(const emit::CpuSite& site, const Symbols& symbols) {
  const ir::Node& leaf = module_[site.leaf];
  for (const NodeId operand : leaf.operands) emit(operand, symbols);
  return offset(site.leaf.value, emit::read_of(leaf, site.second), Of::gradients);
}

Value* Expressions::gradient_data(const emit::CpuSite& site) {
  const std::uint32_t input = emit::read_of(module_[site.leaf], site.second).input;
  return member(input, offsetof(CodeInput, data), e_.ptr, Of::gradients);
}

Expressions::Factors Expressions::factors(const emit::CpuSite& site, const Symbols& symbols) {
  const ir::Node& leaf = module_[site.leaf];
  for (const NodeId operand : leaf.operands) emit(operand, symbols);
  const emit::InputRead read = emit::read_of(leaf, !site.second);
  // An input that was left out has no elements.
  Value* const count = e_.b.CreateBinaryIntrinsic(
      llvm::Intrinsic::smin, last_member(read.input, offsetof(CodeInput, extent)),
      last_member(emit::read_of(leaf, site.second).input, offsetof(CodeInput, extent)));
  return {kernel_.options.input_dtypes[read.input], member(read.input, offsetof(CodeInput, data), e_.ptr),
          offset(site.leaf.value, read), last_member(read.input, offsetof(CodeInput, stride)), count};
}

Value* Expressions::element(std::uint32_t input, ir::Type type, Value* offset) {
  const DType dtype = kernel_.options.input_dtypes[input];
  llvm::Type* const memory = memory_type(e_, dtype);
  Value* const data = member(input, offsetof(CodeInput, data), e_.ptr);
  Value* raw = nullptr;
  if (Emitter::is_vector(offset)) {
    Value* const addresses = e_.b.CreateGEP(memory, data, offset);
    raw = e_.b.CreateMaskedGather(e_.vector(memory), addresses, llvm::Align(1));
  } else {
    raw = e_.load(memory, e_.b.CreateGEP(memory, data, offset));
  }
  return from_memory(e_, dtype, type, raw);
}

// The stride or extent of an input's last dimension.
Value* Expressions::last_member(std::uint32_t input, std::size_t array) {
  return member(input, array + 8 * (module_.inputs[input].dims.size() - 1), e_.i64);
}

Value* Expressions::dot(std::uint32_t n, const ir::Dot& d) {
  const ir::Node& node = module_.nodes()[n];
  Value* const x = offset(n, emit::read_of(node, false));
  Value* const y = offset(n, emit::read_of(node, true));
  Value* const x_stride = last_member(d.first, offsetof(CodeInput, stride));
  Value* const y_stride = last_member(d.second, offsetof(CodeInput, stride));
  Value* const count = last_member(d.first, offsetof(CodeInput, extent));
  const bool vector = Emitter::is_vector(x) || Emitter::is_vector(y);
  Value* const zero = e_.number(vector ? e_.vector(e_.f32) : e_.f32, 0);
  const Values sum = e_.loop_if_any(e_.index(0), count, 1, {zero}, [&](Value* i, const Values& carried) {
    const auto moved = [&](Value* from, Value* step) {
      Value* const by = e_.b.CreateMul(i, step);
      return e_.b.CreateAdd(from, Emitter::is_vector(from) ? e_.splat(by) : by);
    };
    Value* a = element(d.first, ir::Type::real, moved(x, x_stride));
    Value* c = element(d.second, ir::Type::real, moved(y, y_stride));
    if (vector) a = e_.as_vector(a), c = e_.as_vector(c);
    return Values{e_.b.CreateFAdd(carried[0], e_.b.CreateFMul(a, c))};
  });
  return sum[0];
}

}  // namespace vicinal::cpu
