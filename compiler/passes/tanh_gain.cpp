#include "compiler/passes/tanh_gain.h"

#include <cmath>
#include <numbers>

namespace vicinal::passes {
namespace {

using ir::NodeId;

// tanh(x) = x + x^3 * (...), of least relative error over |x| <= kLargest (4.1e-8; fitted by reweighted least
// squares).
constexpr double kTerms[] = {1.0, -0.33332663, 0.13299825, -0.04914849}, kLargest = 0.35;

const ir::Apply* apply_of(const ir::Module& m, NodeId id) {
  return std::get_if<ir::Apply>(&m[id].what);
}

// The c of c * score.
std::optional<double> slope_of(const ir::Module& m, NodeId id) {
  const auto is_score = [&](NodeId n) {
    const auto* symbol = std::get_if<ir::Symbol>(&m[n].what);
    return symbol != nullptr && symbol->kind == ir::SymbolKind::score;
  };
  if (is_score(id)) return 1.0;
  const ir::Apply* apply = apply_of(m, id);
  if (apply == nullptr || apply->op != ir::Op::mul_f) return std::nullopt;
  const ir::Operands& operands = m[id].operands;
  for (int i = 0; i < 2; ++i)
    if (const auto c = m.constant_value(operands[i]); c && is_score(operands[1 - i])) return c->f;
  return std::nullopt;
}

}  // namespace

std::optional<TanhGain> tanh_gain(const ScoreForm& form) {
  const ir::Module& m = form.module;
  const NodeId core = m.root(ir::Root::score);
  if (form.slope.valid() || form.core_is_score || !core.valid()) return std::nullopt;
  const ir::Apply* apply = apply_of(m, core);
  if (apply == nullptr || apply->op != ir::Op::tanh_f) return std::nullopt;
  const std::optional<double> slope = slope_of(m, m[core].operands[0]);
  const auto factor = form.factor.valid() ? m.constant_value(form.factor) : ir::real_value(1);
  if (!slope || !factor) return std::nullopt;
  TanhGain gain;
  double power = *slope * factor->f * std::numbers::log2e;
  for (std::size_t i = 0; i < gain.terms.size(); ++i, power *= *slope * *slope) {
    gain.terms[i] = static_cast<float>(kTerms[i] * power);
    // Below, fp32 has fewer digits; a negative slope would turn the order of the scores.
    if (!(power >= 1e-36 && power <= 1e36)) return std::nullopt;
  }
  gain.limit = static_cast<float>(kLargest / *slope);
  gain.rise = static_cast<float>(factor->f * *slope);
  gain.bound = static_cast<float>(factor->f * std::numbers::log2e);
  return gain;
}

}  // namespace vicinal::passes
