#include "compiler/analysis/placement.h"

#include "compiler/analysis/whole_sum.h"

namespace vicinal::analysis {
namespace {

using ir::NodeId;
using ir::Op;

Place place_of(int varies) {
  if (varies == ir::kLaunch) return Place::launch;
  if ((varies & (ir::kScore | ir::kOutput)) != 0) return Place::element;
  if ((varies & ir::kKey) == 0) return Place::row;
  return (varies & ir::kQuery) == 0 ? Place::column : Place::element;
}

// As fast to compute as to look up.
bool is_cheap(Op op) {
  switch (op) {
    case Op::add_i:
    case Op::sub_i:
    case Op::neg_i:
    case Op::min_i:
    case Op::max_i:
    case Op::bitand_i:
    case Op::bitor_i:
    case Op::bitxor_i:
    case Op::bitnot_i:
    case Op::eq_i:
    case Op::ne_i:
    case Op::lt_i:
    case Op::le_i:
    case Op::float_i: return true;
    default: return false;
  }
}

}  // namespace

Placement place(const ir::Module& module, std::span<const NodeId> roots, bool keeps_columns) {
  Placement result;
  for (const std::uint8_t varies : ir::variance(module)) {
    const Place place = place_of(varies);
    result.place.push_back(place == Place::column && !keeps_columns ? Place::element : place);
  }

  // Values whose users are elements, or roots. What is below a kept value is not asked for.
  std::vector<bool> wanted(module.size());
  for (const NodeId root : roots)
    if (root.valid()) wanted[root.value] = true;
  for (std::uint32_t n = static_cast<std::uint32_t>(module.size()); n-- > 0;)
    if (wanted[n] && result.place[n] == Place::element)
      for (const NodeId id : module.nodes()[n].operands) wanted[id.value] = true;

  // Made of k, constants and what is the same for the launch, by cheap operations alone.
  std::vector<bool> cheap(module.size());
  for (std::uint32_t n = 0; n < module.size(); ++n) {
    const ir::Node& node = module.nodes()[n];
    if (const auto* apply = std::get_if<ir::Apply>(&node.what)) {
      cheap[n] = is_cheap(apply->op);
      for (const NodeId id : node.operands) cheap[n] = cheap[n] && cheap[id.value];
    } else {
      const bool at_hand =
          std::holds_alternative<ir::Constant>(node.what) || std::holds_alternative<ir::Symbol>(node.what);
      cheap[n] = is_key(module, NodeId{n}) || (at_hand && result.place[n] == Place::launch);
    }
    if (!wanted[n]) continue;
    if (result.place[n] == Place::row || (result.place[n] == Place::launch && !cheap[n]))
      result.rows.push_back(NodeId{n});
    if (result.place[n] == Place::column && !cheap[n]) result.columns.push_back(NodeId{n});
  }
  return result;
}

}  // namespace vicinal::analysis
