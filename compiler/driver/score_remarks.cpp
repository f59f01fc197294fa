#include "compiler/driver/score_remarks.h"

#include "compiler/ir/reachable.h"
#include "compiler/passes/tanh_gain.h"

namespace vicinal::driver {

void remark_on_scores(const check::CheckedSpec& checked, const emit::Specialized& specialized,
                      diagnostics::Sink& sink) {
  const ir::Module& m = checked.module;
  const ir::NodeId score = m.root(ir::Root::score);
  if (!score.valid()) return;
  // Whether there is a polynomial does not depend on the head dim.
  constexpr float kAnyScale = 0.125f;
  const bool polynomial = !specialized.context && m.normalize == ir::Normalize::softmax &&
                          passes::tanh_gain(passes::score_form(specialized.grid.module, kAnyScale));
  const std::vector<std::uint8_t> varies = ir::variance(m);
  const std::vector<bool> reached = ir::reachable(m, score);
  for (std::uint32_t n = score.value + 1; n-- > 0;) {
    const auto* apply = std::get_if<ir::Apply>(&m.nodes()[n].what);
    if (reached[n] && apply != nullptr && apply->op == ir::Op::tanh_f && (varies[n] & ir::kScore) != 0)
      sink.report(polynomial ? diagnostics::Kind::tanh_by_polynomial : diagnostics::Kind::tanh_by_functions,
                  checked.origins[n]);
  }
}

}  // namespace vicinal::driver
