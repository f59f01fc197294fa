#include "compiler/analysis/row_limits.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

namespace vicinal::analysis {
namespace {

using ir::NodeId;
using ir::Op;

class Reading {
 public:
  explicit Reading(const ir::Module& module) : m_(module), sums_(module), varies_(ir::variance(module)) {}

  RowLimits run() {
    const NodeId mask = m_.root(ir::Root::mask);
    if (mask.valid()) open_.push_back({mask, false, mask});
    while (!open_.empty()) {
      const Conjunct c = open_.back();
      open_.pop_back();
      if (seen_.emplace(c.part, c.negated).second && !limit(c) && !split(c)) keep(c.whole);
    }
    return std::move(result_);
  }

 private:
  // The part holds or, negated, does not. There need not be a node that says so: `whole` does, perhaps among
  // other things.
  struct Conjunct {
    NodeId part;
    bool negated;
    NodeId whole;
  };

  bool split(const Conjunct& c) {
    if (const auto value = m_.constant_value(c.part)) return value->b != c.negated;
    const ir::Node& node = m_[c.part];
    const auto* apply = std::get_if<ir::Apply>(&node.what);
    if (apply == nullptr) return false;
    if (apply->op == Op::not_b) {
      open_.push_back({node.operands[0], !c.negated, c.negated ? node.operands[0] : c.whole});
      return true;
    }
    if (apply->op != (c.negated ? Op::or_b : Op::and_b)) return false;
    for (const NodeId part : {node.operands[1], node.operands[0]})
      open_.push_back({part, c.negated, c.negated ? c.whole : part});
    return true;
  }

  bool limit(const Conjunct& c) {
    const ir::Node& node = m_[c.part];
    const auto* apply = std::get_if<ir::Apply>(&node.what);
    if (apply == nullptr || node.operands.size() != 2) return false;
    const NodeId a = node.operands[0], b = node.operands[1];
    if (apply->op == (c.negated ? Op::ne_i : Op::eq_i)) return at_most(a, b, 0) && at_most(b, a, 0);
    if (apply->op == Op::lt_i) return c.negated ? at_most(b, a, 0) : at_most(a, b, -1);
    if (apply->op == Op::le_i) return c.negated ? at_most(b, a, -1) : at_most(a, b, 0);
    return false;
  }

  // a <= b + slack
  bool at_most(NodeId a, NodeId b, std::int64_t slack) {
    const auto* apply = std::get_if<ir::Apply>(&m_[a].what);
    if (apply != nullptr && apply->op == Op::abs_i && (varies_[b.value] & ir::kKey) == 0) {
      // |x| <= b where both x <= b and -x <= b, save for the one int whose negation wraps.
      const NodeId x = m_[a].operands[0];
      if (!sums_[x] || sums_.range(x).low == std::numeric_limits<std::int32_t>::min()) return false;
      return at_most(*sums_[x], *sums_[b], slack) &&
             at_most(WholeSum{}.plus(*sums_[x], true), *sums_[b], slack);
    }
    return sums_[a] && sums_[b] && at_most(*sums_[a], *sums_[b], slack);
  }
  bool at_most(const WholeSum& a, const WholeSum& b, std::int64_t slack) {
    WholeSum d = a.plus(b, true);
    d.row.constant -= slack;
    if (d.key == 1) {  // k + row <= 0
      d.row.constant -= 1;
      result_.ends.push_back(RowSum{}.plus(d.row, true));
    }
    if (d.key == -1) result_.begins.push_back(d.row);  // row <= k
    return d.key == 1 || d.key == -1;
  }

  void keep(NodeId whole) {
    auto& list = (varies_[whole.value] & ir::kKey) == 0 ? result_.conditions : result_.rest;
    if (std::ranges::find(list, whole) == list.end()) list.push_back(whole);
  }

  const ir::Module& m_;
  const WholeSums sums_;
  const std::vector<std::uint8_t> varies_;
  std::vector<Conjunct> open_;
  std::set<std::pair<NodeId, bool>> seen_;
  RowLimits result_;
};

}  // namespace

RowLimits row_limits(const ir::Module& module) {
  return Reading(module).run();
}

}  // namespace vicinal::analysis
