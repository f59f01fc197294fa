#include "runtime/cpu/root_differential.h"

#include <algorithm>
#include <numeric>

#include "compiler/support/match.h"
#include "runtime/host/elements.h"

namespace vicinal::cpu {
namespace {

using ir::NodeId;
using ir::SymbolKind;

std::vector<ir::Partial> partials_of(const ir::Module& module, ir::Root root) {
  std::vector<ir::Partial> result;
  std::ranges::copy_if(module.partials, std::back_inserter(result),
                       [&](const ir::Partial& p) { return p.of == root; });
  return result;
}

// Values, and the indices of reads.
std::vector<NodeId> needed(const ir::Module& module, const std::vector<ir::Partial>& partials) {
  std::vector<NodeId> nodes;
  for (const ir::Partial& p : partials) {
    nodes.push_back(p.value);
    for (const NodeId id : module[p.leaf].operands) nodes.push_back(id);
  }
  return nodes;
}

double factor_at(const runtime::CapturedInput& x, std::int64_t element) {
  std::int64_t at = 0;
  for (std::size_t i = x.extents.size(); i-- > 0; element /= x.extents[i])
    at += element % x.extents[i] * x.strides[i];
  return host::load_element(x.data, x.dtype, at);
}

}  // namespace

LeafVector LeafVector::zeros(const ir::Module& module, const runtime::Problem& problem) {
  LeafVector v;
  v.params.resize(module.params.size());
  v.inputs.resize(module.inputs.size());
  for (std::size_t i = 0; i < module.inputs.size(); ++i) {
    const runtime::CapturedInput& x = problem.inputs[i];
    if (!module.inputs[i].learnable || left_out(x)) continue;
    v.inputs[i].resize(static_cast<std::size_t>(
        std::accumulate(x.extents.begin(), x.extents.end(), std::int64_t{1}, std::multiplies<>())));
  }
  return v;
}

void LeafVector::add(const LeafVector& other) {
  for (std::size_t i = 0; i < params.size(); ++i) params[i] += other.params[i];
  for (std::size_t i = 0; i < inputs.size(); ++i)
    for (std::size_t j = 0; j < inputs[i].size(); ++j) inputs[i][j] += other.inputs[i][j];
}

RootDifferential::RootDifferential(const ir::Module& module, const runtime::Problem& problem, ir::Root root,
                                   Arithmetic arithmetic)
    : module_(module),
      problem_(problem),
      partials_(partials_of(module, root)),
      expression_(module, problem, needed(module, partials_), arithmetic),
      plain_(arithmetic == Arithmetic::plain) {
  if (module.root(root).valid()) return;
  if (root == ir::Root::score) identity_ = &LeafVector::score;
  if (root == ir::Root::output) identity_ = &LeafVector::out;
}

std::int64_t RootDifferential::element(std::uint32_t input, const ir::Node& node, std::size_t first,
                                       std::size_t last, const Scratch& values) const {
  const std::vector<std::int64_t>& extents = problem_.inputs[input].extents;
  std::int64_t result = 0;
  for (std::size_t i = first; i < last; ++i)
    result = result * extents[i - first] +
             std::clamp<std::int64_t>(values[node.operands[i].value].i, 0, extents[i - first] - 1);
  return result;
}

template <class Vector, class Visit>
void RootDifferential::elements(const ir::Partial& partial, const Scratch& values, Vector& leaves,
                                Visit visit) const {
  const ir::Node& leaf = module_[partial.leaf];
  if (const auto* load = std::get_if<ir::Load>(&leaf.what)) {
    auto& all = leaves.inputs[load->input];
    if (!all.empty())
      visit(all[static_cast<std::size_t>(element(load->input, leaf, 0, leaf.operands.size(), values))], 1.0);
    return;
  }
  const auto& dot = std::get<ir::Dot>(leaf.what);
  const runtime::CapturedInput &x = problem_.inputs[dot.first], &y = problem_.inputs[dot.second];
  if (left_out(x) || left_out(y)) return;
  const std::int64_t length = x.extents.back();
  const std::int64_t x_at = element(dot.first, leaf, 0, dot.first_indices, values) * length;
  const std::int64_t y_at =
      element(dot.second, leaf, dot.first_indices, leaf.operands.size(), values) * length;
  for (std::int64_t i = 0; i < length; ++i) {
    auto &of_x = leaves.inputs[dot.first], &of_y = leaves.inputs[dot.second];
    if (!of_x.empty()) visit(of_x[static_cast<std::size_t>(x_at + i)], factor_at(y, y_at + i));
    if (!of_y.empty()) visit(of_y[static_cast<std::size_t>(y_at + i)], factor_at(x, x_at + i));
  }
}

template <class Vector, class Visit>
void RootDifferential::each(const Place& place, Scratch& values, Vector& leaves, Visit visit) const {
  if (identity_ != nullptr) visit(leaves.*identity_, 1.0);
  if (partials_.empty()) return;
  expression_.evaluate(place, values);
  for (const ir::Partial& p : partials_) {
    const double slope = values[p.value.value].f;
    if (slope == 0) continue;
    if (const auto* s = std::get_if<ir::Symbol>(&module_[p.leaf].what)) {
      visit(s->kind == SymbolKind::score ? leaves.score
            : s->kind == SymbolKind::out ? leaves.out
            : s->kind == SymbolKind::lse ? leaves.lse
                                         : leaves.params[s->index],
            slope);
      continue;
    }
    elements(p, values, leaves, [&](auto& number, double factor) { visit(number, slope * factor); });
  }
}

void RootDifferential::pull(const Place& place, Scratch& values, double upstream, LeafVector& to) const {
  each(place, values, to, [&](double& sum, double slope) {
    const double part = upstream * slope;
    sum = plain_ ? static_cast<double>(static_cast<float>(sum) + static_cast<float>(part)) : sum + part;
  });
}

double RootDifferential::push(const Place& place, Scratch& values, const LeafVector& from) const {
  double result = 0;
  each(place, values, from, [&](const double& tangent, double slope) { result += slope * tangent; });
  return result;
}

}  // namespace vicinal::cpu
