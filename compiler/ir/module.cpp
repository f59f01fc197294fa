#include "compiler/ir/module.h"

#include <algorithm>
#include <bit>

#include "compiler/support/check.h"
#include "compiler/support/match.h"

namespace vicinal::ir {
namespace {

constexpr SymbolInfo kSymbols[] = {
    {SymbolKind::b, "b", Type::integer, kBatch},
    {SymbolKind::h, "h", Type::integer, kHead},
    {SymbolKind::kv_h, "kv_h", Type::integer, kHead},
    {SymbolKind::q, "q", Type::integer, kQuery},
    {SymbolKind::q_index, "q.index", Type::integer, kQuery},
    {SymbolKind::k, "k", Type::integer, kKey},
    {SymbolKind::k_context, "k.context", Type::boolean, kKey},
    {SymbolKind::score, "score", Type::real, kBatch | kHead | kQuery | kKey | kScore},
    {SymbolKind::out, "out", Type::real, kBatch | kHead | kQuery | kOutput},
    {SymbolKind::lse, "lse", Type::real, kBatch | kHead | kQuery | kOutput},
    {SymbolKind::batch, "batch", Type::integer, kLaunch},
    {SymbolKind::heads, "heads", Type::integer, kLaunch},
    {SymbolKind::kv_heads, "kv_heads", Type::integer, kLaunch},
    {SymbolKind::tokens, "tokens", Type::integer, kLaunch},
    {SymbolKind::keys, "keys", Type::integer, kLaunch},
    {SymbolKind::context, "context", Type::integer, kLaunch},
    {SymbolKind::head_dim, "head_dim", Type::integer, kLaunch},
    {SymbolKind::q_axis, "q.", Type::integer, kQuery},
    {SymbolKind::k_axis, "k.", Type::integer, kKey},
    {SymbolKind::axis_length, "len.", Type::integer, kLaunch},
    {SymbolKind::named_extent, "extent.", Type::integer, kLaunch},
    {SymbolKind::param, "param.", Type::real, kLaunch},
    {SymbolKind::argument, "argument.", Type::integer, kBatch | kHead | kQuery | kKey},
};

}  // namespace

const SymbolInfo& info(SymbolKind kind) {
  return kSymbols[static_cast<std::size_t>(kind)];
}
std::span<const SymbolInfo> all_symbols() {
  return kSymbols;
}

std::string_view name_of(Normalize normalize) {
  constexpr std::string_view names[] = {"softmax", "sigmoid", "none"};
  return names[static_cast<int>(normalize)];
}

std::string_view name_of(Root root) {
  constexpr std::string_view names[] = {"score", "mask", "scale", "sink", "output"};
  return names[static_cast<int>(root)];
}

Operands::Operands(std::span<const NodeId> ids) : size_(static_cast<std::uint8_t>(ids.size())) {
  VICINAL_ASSERT(ids.size() <= std::size(ids_), "a node has at most eight operands");
  std::copy(ids.begin(), ids.end(), ids_);
}

bool operator==(const Operands& a, const Operands& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

std::size_t Module::Hash::operator()(const Node& node) const {
  std::size_t h = node.what.index() * 31 + static_cast<std::size_t>(node.type);
  const auto mix = [&h](std::uint64_t x) { h = (h ^ x) * 0x9e3779b97f4a7c15u, h ^= h >> 29; };
  support::match(
      node.what, [&](const Constant& c) { mix(c.bits); },
      [&](const Symbol& s) { mix(static_cast<std::uint64_t>(s.kind) << 32 | s.index); },
      [&](const Apply& a) { mix(static_cast<std::uint64_t>(a.op)); }, [&](const Load& l) { mix(l.input); },
      [&](const Dot& d) { mix(static_cast<std::uint64_t>(d.first) << 32 | d.second), mix(d.first_indices); });
  for (NodeId id : node.operands) mix(id.value);
  return h;
}

NodeId Module::add(const Node& node) {
  for (NodeId id : node.operands)
    VICINAL_ASSERT(id.value < nodes_.size(), "operands stand before their users");
  const auto [it, is_new] = known_.try_emplace(node, NodeId{static_cast<std::uint32_t>(nodes_.size())});
  if (is_new) nodes_.push_back(node);
  return it->second;
}

NodeId Module::constant(std::int32_t value) {
  return add({Constant{Type::integer, static_cast<std::uint32_t>(value)}, Type::integer, {}});
}
NodeId Module::constant(float value) {
  // One NaN for all: the language does not tell them apart, and they print alike.
  const std::uint32_t bits = value != value ? 0x7fc00000u : std::bit_cast<std::uint32_t>(value);
  return add({Constant{Type::real, bits}, Type::real, {}});
}
NodeId Module::constant(bool value) {
  return add({Constant{Type::boolean, value}, Type::boolean, {}});
}

NodeId Module::constant(Type type, Value value) {
  switch (type) {
    case Type::integer: return constant(value.i);
    case Type::real: return constant(static_cast<float>(value.f));
    case Type::boolean: return constant(value.b);
  }
  VICINAL_ASSERT(false, "a type");
}

NodeId Module::symbol(SymbolKind kind, std::uint32_t index) {
  const Type type = kind == SymbolKind::param ? params[index].type : info(kind).type;
  return add({Symbol{kind, index}, type, {}});
}

NodeId Module::apply(Op op, Operands operands) {
  const OpInfo& row = info(op);
  VICINAL_ASSERT(static_cast<int>(operands.size()) == row.arity, row.name);
  for (int i = 0; i < row.arity; ++i)
    VICINAL_ASSERT((*this)[operands[static_cast<std::size_t>(i)]].type == row.operands[i], row.name);
  return add({Apply{op}, row.result, operands});
}

NodeId Module::load(std::uint32_t input, Operands indices) {
  VICINAL_ASSERT(indices.size() == inputs[input].dims.size(), "an index for each dimension");
  return add({Load{input}, inputs[input].type, indices});
}

NodeId Module::dot(std::uint32_t first, std::uint32_t second, std::span<const NodeId> first_indices,
                   std::span<const NodeId> second_indices) {
  std::vector<NodeId> all(first_indices.begin(), first_indices.end());
  all.insert(all.end(), second_indices.begin(), second_indices.end());
  return add({Dot{first, second, static_cast<std::uint32_t>(first_indices.size())}, Type::real,
              Operands(std::span<const NodeId>(all))});
}

std::optional<Value> Module::constant_value(NodeId id) const {
  if (!id.valid()) return std::nullopt;
  if (const auto* c = std::get_if<Constant>(&(*this)[id].what)) return value_of(*c);
  return std::nullopt;
}

Module Module::without_nodes() const {
  Module copy = *this;
  copy.nodes_.clear();
  copy.known_.clear();
  return copy;
}

Value value_of(const Constant& constant) {
  switch (constant.type) {
    case Type::integer: return int_value(static_cast<std::int32_t>(constant.bits));
    case Type::real: return real_value(std::bit_cast<float>(constant.bits));
    case Type::boolean: return bool_value(constant.bits != 0);
  }
  VICINAL_ASSERT(false, "a type");
}

std::vector<std::uint8_t> variance(const Module& module) {
  std::vector<std::uint8_t> result(module.size());
  for (std::size_t n = 0; n < module.size(); ++n) {
    const Node& node = module.nodes()[n];
    int bits = 0;
    if (const auto* symbol = std::get_if<Symbol>(&node.what)) bits = info(symbol->kind).varies;
    for (NodeId id : node.operands) bits |= result[id.value];
    result[n] = static_cast<std::uint8_t>(bits);
  }
  return result;
}

}  // namespace vicinal::ir
