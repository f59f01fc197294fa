#include "compiler/driver/tile_remarks.h"

#include <string_view>

#include "compiler/ir/reachable.h"
#include "compiler/passes/pipeline.h"

namespace vicinal::driver {
namespace {

using diagnostics::Kind;
using ir::NodeId;
using ir::Op;

class Remarks {
 public:
  Remarks(const check::CheckedSpec& checked, diagnostics::Sink& sink)
      : checked_(checked), module_(checked.module), varies_(ir::variance(module_)), sink_(sink) {}

  // Every node under the mask over which a box of pairs is known only by its extremes.
  void on_bounds(NodeId mask) {
    const std::vector<bool> reached = ir::reachable(module_, mask);
    for (std::uint32_t n = mask.value + 1; n-- > 0;) {
      if (!reached[n]) continue;
      if (const std::string_view why = loose(n, module_.nodes()[n]); !why.empty())
        sink_.report(Kind::bounded_by_extremes, checked_.origins[n], why);
    }
  }

 private:
  bool in_tile(NodeId id) const { return (varies_[id.value] & (ir::kQuery | ir::kKey)) != 0; }
  bool by_pair(std::uint32_t n) const {
    return (varies_[n] & ir::kQuery) != 0 && (varies_[n] & ir::kKey) != 0;
  }

  std::string_view loose(std::uint32_t n, const ir::Node& node) const {
    if (std::holds_alternative<ir::Dot>(node.what))
      return in_tile(NodeId{n}) ? "a sum over channels has no bound over a tile" : "";
    if (std::holds_alternative<ir::Load>(node.what))
      return by_pair(n) ? "a read at a place that changes with every pair is as wide as all that a tile reads"
                        : "";
    const auto* apply = std::get_if<ir::Apply>(&node.what);
    if (apply == nullptr || node.operands.size() != 2) return "";
    const bool x = in_tile(node.operands[0]), y = in_tile(node.operands[1]);
    switch (apply->op) {
      case Op::mul_i:
      case Op::mul_f: return x && y ? "a product of two values that change inside a tile" : "";
      case Op::floordiv_i:
      case Op::floormod_i:
      case Op::div_f:
      case Op::floordiv_f:
      case Op::floormod_f: return y ? "a divisor that changes inside a tile" : "";
      case Op::shl_i:
      case Op::shr_i: return y ? "a shift by a count that changes inside a tile" : "";
      case Op::bitand_i:
      case Op::bitor_i:
      case Op::bitxor_i: return x && y ? "bits of two values that change inside a tile" : "";
      default: return "";
    }
  }

  const check::CheckedSpec& checked_;
  const ir::Module& module_;
  const std::vector<std::uint8_t> varies_;
  diagnostics::Sink& sink_;
};

}  // namespace

void remark_on_tiles(const check::CheckedSpec& checked, const emit::Specialized& specialized,
                     diagnostics::Sink& sink) {
  const NodeId mask = checked.module.root(ir::Root::mask);
  if (!mask.valid()) return;
  if (!emit::has_mask(specialized)) {
    sink.report(Kind::mask_redundant, checked.origins[mask.value]);
    return;
  }
  if (passes::keeps_own_key(specialized.grid.module))
    sink.report(Kind::own_key_kept, checked.origins[mask.value]);
  Remarks(checked, sink).on_bounds(mask);
}

}  // namespace vicinal::driver
