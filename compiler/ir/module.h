// The IR of one attention variant: a flat, hash-consed list of typed nodes, operands always before their
// users, and what the nodes are for. The words below are the semantics that every backend keeps.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "compiler/ir/ops.h"
#include "compiler/support/ids.h"

namespace vicinal::ir {

using NodeId = support::Id<struct NodeTag>;

// What a value changes with. Sets are unions of bits; none: a constant of the launch.
enum Varies : std::uint8_t {
  kLaunch = 0,
  kBatch = 1,
  kHead = 2,  // of queries or of keys
  kQuery = 4,
  kKey = 8,
  kScore = 16,  // reads the dot product
  kOutput = 32,
};

// Names that the language gives; module.cpp has their table.
enum class SymbolKind : std::uint8_t {
  b,
  h,
  kv_h,
  q,
  q_index,
  k,
  k_context,
  score,
  out,
  lse,  // of a row, a key or a pair
  batch,
  heads,
  kv_heads,
  tokens,
  keys,
  context,
  head_dim,  // extents
  q_axis,
  k_axis,
  axis_length,
  named_extent,
  param,
  argument,  // with an index
};

struct SymbolInfo {
  SymbolKind kind;
  std::string_view name;  // as the language spells it; a prefix where the symbol has an index
  Type type;              // params and arguments have their own
  int varies;
};
const SymbolInfo& info(SymbolKind kind);
std::span<const SymbolInfo> all_symbols();

struct Constant {
  Type type;
  std::uint32_t bits;  // two's complement, fp32, or 0 and 1
  friend bool operator==(const Constant&, const Constant&) = default;
};
struct Symbol {
  SymbolKind kind;
  std::uint32_t index = 0;  // axis, extent, param or argument
  friend bool operator==(const Symbol&, const Symbol&) = default;
};
struct Apply {
  Op op;
  friend bool operator==(const Apply&, const Apply&) = default;
};
// One element of a captured input; an index outside [0, extent) is clamped into it.
struct Load {
  std::uint32_t input;
  friend bool operator==(const Load&, const Load&) = default;
};
// Sum over the last dimensions of two inputs, fp32 products added in index order. Operands: the other indices
// of the first, then of the second.
struct Dot {
  std::uint32_t first, second;
  std::uint32_t first_indices;  // how many operands belong to `first`
  friend bool operator==(const Dot&, const Dot&) = default;
};

// Up to eight operands, inline.
class Operands {
 public:
  Operands() = default;
  Operands(std::initializer_list<NodeId> ids) : Operands(std::span<const NodeId>(ids.begin(), ids.size())) {}
  explicit Operands(std::span<const NodeId> ids);
  std::size_t size() const { return size_; }
  NodeId operator[](std::size_t i) const { return ids_[i]; }
  NodeId& operator[](std::size_t i) { return ids_[i]; }
  const NodeId* begin() const { return ids_; }
  const NodeId* end() const { return ids_ + size_; }
  NodeId* begin() { return ids_; }
  NodeId* end() { return ids_ + size_; }
  friend bool operator==(const Operands& a, const Operands& b);

 private:
  NodeId ids_[8];
  std::uint8_t size_ = 0;
};

struct Node {
  std::variant<Constant, Symbol, Apply, Load, Dot> what;
  Type type;
  Operands operands;
  friend bool operator==(const Node&, const Node&) = default;
};

struct Axis {
  std::string name;
  NodeId window;            // none: all tokens of the dilation group
  NodeId dilation, stride;  // none: 1
  bool causal = false;
};
struct Param {
  std::string name;
  Type type;
  Value value;  // the default, or what the caller bound
  bool learnable = false;
  bool dynamic = false;  // passed at launch
};
struct Input {
  std::string name;
  Type type;
  std::vector<NodeId> dims;  // over extents, and params that are not dynamic
  bool learnable = false;
};

enum class Normalize : std::uint8_t { softmax, sigmoid, none };
enum class Root : std::uint8_t { score, mask, scale, sink, output };
inline constexpr int kRootCount = 5;
std::string_view name_of(Normalize normalize);
std::string_view name_of(Root root);

// The derivative of a root with respect to one value that it is computed from.
struct Partial {
  Root of;
  // The symbol `score`, `out` or `lse`, a learnable param, a Load of a learnable input, or a Dot that reads
  // one, whose other factor then completes the chain.
  NodeId leaf;
  NodeId value;
  friend bool operator==(const Partial&, const Partial&) = default;
};

class Module {
 public:
  std::string name;
  std::vector<Axis> axes;
  std::vector<Param> params;
  std::vector<Input> inputs;
  std::vector<std::string> extents;  // declared by inputs' dims
  bool context = false;
  Normalize normalize = Normalize::softmax;
  bool query_l2norm = false, key_l2norm = false, align_end = false;
  NodeId roots[kRootCount];  // none: not assigned
  // What passes::differentiate adds: at most one for a root and a leaf, and none where the derivative is 0.
  std::vector<Partial> partials;

  NodeId root(Root r) const { return roots[static_cast<int>(r)]; }
  NodeId& root(Root r) { return roots[static_cast<int>(r)]; }

  std::size_t size() const { return nodes_.size(); }
  const Node& operator[](NodeId id) const { return nodes_[id.value]; }
  std::span<const Node> nodes() const { return nodes_; }

  // The node, new or as it already stands.
  NodeId add(const Node& node);
  NodeId constant(std::int32_t value);
  NodeId constant(float value);
  NodeId constant(bool value);
  NodeId constant(Type type, Value value);
  NodeId symbol(SymbolKind kind, std::uint32_t index = 0);
  NodeId apply(Op op, Operands operands);
  NodeId load(std::uint32_t input, Operands indices);
  NodeId dot(std::uint32_t first, std::uint32_t second, std::span<const NodeId> first_indices,
             std::span<const NodeId> second_indices);

  std::optional<Value> constant_value(NodeId id) const;
  bool is_constant(NodeId id) const { return std::holds_alternative<Constant>((*this)[id].what); }
  // Every use of a node from outside the list: roots, partials, axes, dims. F takes a NodeId&.
  template <class F>
  void for_each_use(F f) {
    for (NodeId& r : roots)
      if (r.valid()) f(r);
    for (Partial& p : partials) f(p.leaf), f(p.value);
    for (Axis& a : axes)
      for (NodeId* id : {&a.window, &a.dilation, &a.stride})
        if (id->valid()) f(*id);
    for (Input& i : inputs)
      for (NodeId& d : i.dims) f(d);
  }
  // The same without nodes; passes fill them in again.
  Module without_nodes() const;

 private:
  struct Hash {
    std::size_t operator()(const Node& node) const;
  };
  std::vector<Node> nodes_;
  std::unordered_map<Node, NodeId, Hash> known_;
};

Value value_of(const Constant& constant);
// What each node changes with, a union of Varies bits, by node.
std::vector<std::uint8_t> variance(const Module& module);

}  // namespace vicinal::ir
