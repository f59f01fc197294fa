#include <cmath>
#include <unordered_map>

#include "compiler/passes/passes.h"
#include "compiler/passes/rewrite.h"

namespace vicinal::passes {
namespace {

using ir::Module;
using ir::Node;
using ir::NodeId;
using ir::Op;

class Extraction {
 public:
  explicit Extraction(Module& module) : m_(module) {}

  // When the value is not -inf, as far as its shape tells; none: nothing is known.
  NodeId condition(NodeId value) {
    if (const auto known = conditions_.find(value); known != conditions_.end()) return known->second;
    NodeId result;
    if (const auto constant = m_.constant_value(value)) {
      if (std::isinf(constant->f) && constant->f < 0) result = m_.constant(false);
    } else if (const std::optional<Choice> choice = choice_of(value)) {
      const NodeId yes = condition(choice->yes), no = condition(choice->no);
      if (yes.valid() || no.valid())
        result = m_.apply(Op::select_b, {choice->condition, or_true(yes), or_true(no)});
    }
    conditions_.emplace(value, result);
    return result;
  }

  // The value where the condition holds.
  NodeId rest(NodeId value) {
    const std::optional<Choice> choice = choice_of(value);
    if (!choice) return value;
    if (is_false(condition(choice->no))) return rest(choice->yes);
    if (is_false(condition(choice->yes))) return rest(choice->no);
    const NodeId yes = rest(choice->yes), no = rest(choice->no);
    return m_.apply(Op::select_f, {choice->condition, yes, no});
  }

 private:
  struct Choice {
    NodeId condition, yes, no;
  };
  // By a condition that a mask would evaluate to the same: one without floats, which a score computes wide.
  std::optional<Choice> choice_of(NodeId value) {
    const Node& node = m_[value];
    const auto* apply = std::get_if<ir::Apply>(&node.what);
    if (apply == nullptr || apply->op != Op::select_f || reads_floats(node.operands[0])) return std::nullopt;
    return Choice{node.operands[0], node.operands[1], node.operands[2]};
  }
  bool reads_floats(NodeId value) {
    if (const auto known = reads_floats_.find(value); known != reads_floats_.end()) return known->second;
    bool result = m_[value].type == ir::Type::real;
    for (NodeId id : m_[value].operands) result = result || reads_floats(id);
    return reads_floats_[value] = result;
  }
  bool is_false(NodeId condition) const {
    if (!condition.valid()) return false;
    const auto value = m_.constant_value(condition);
    return value && !value->b;
  }
  NodeId or_true(NodeId condition) { return condition.valid() ? condition : m_.constant(true); }

  Module& m_;
  std::unordered_map<NodeId, NodeId> conditions_;
  std::unordered_map<NodeId, bool> reads_floats_;
};

}  // namespace

Module mask_from_score(const Module& module) {
  Module m = rewrite(module, [](Module& to, const Node& node) { return to.add(node); });
  const NodeId score = m.root(ir::Root::score);
  if (!score.valid()) return m;
  Extraction extraction(m);
  const NodeId kept = extraction.condition(score);
  if (!kept.valid()) return m;
  NodeId& mask = m.root(ir::Root::mask);
  mask = mask.valid() ? m.apply(Op::and_b, {mask, kept}) : kept;
  m.root(ir::Root::score) = extraction.rest(score);
  return m;
}

}  // namespace vicinal::passes
