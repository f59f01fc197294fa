#include "runtime/cpu/expression.h"

#include <algorithm>
#include <cmath>

#include "compiler/support/check.h"
#include "compiler/support/match.h"
#include "runtime/host/elements.h"

namespace vicinal::cpu {
namespace {

using ir::NodeId;
using ir::SymbolKind;
using ir::Value;
using runtime::Problem;

// tanh_approx is within 2^-10 of tanh, relatively: eleven bits of it.
double approximated(double x) {
  int exponent = 0;
  const double fraction = std::frexp(x, &exponent);
  return std::ldexp(std::trunc(fraction * 2048) / 2048, exponent);
}

}  // namespace

bool left_out(const runtime::CapturedInput& x) {
  return x.data == nullptr || std::ranges::find(x.extents, 0) != x.extents.end();
}

Expression::Expression(const ir::Module& module, const Problem& problem, NodeId root, Arithmetic arithmetic)
    : Expression(module, problem, std::span(&root, root.valid() ? 1 : 0), arithmetic) {
  root_ = root;
}

Expression::Expression(const ir::Module& module, const Problem& problem, std::span<const NodeId> roots,
                       Arithmetic arithmetic)
    : module_(module), problem_(problem), arithmetic_(arithmetic), exact_(arithmetic != Arithmetic::wide) {
  const std::vector<std::uint8_t> varies = ir::variance(module);
  std::vector<bool> reached(module.size());
  for (const NodeId root : roots) reached[root.value] = true;
  for (std::size_t n = module.size(); n-- > 0;)
    if (reached[n])
      for (NodeId id : module.nodes()[n].operands) reached[id.value] = true;
  for (std::uint32_t n = 0; n < module.size(); ++n)
    if (reached[n])
      ((varies[n] & (ir::kKey | ir::kScore | ir::kOutput)) != 0 ? per_key_ : per_row_).push_back(n);
}

void Expression::start_row(const Place& place, Scratch& values) const {
  values.resize(module_.size());
  for (std::uint32_t n : per_row_) values[n] = value(n, place, values);
}

void Expression::evaluate(const Place& place, Scratch& values) const {
  for (std::uint32_t n : per_key_) values[n] = value(n, place, values);
}

Value Expression::at(const Place& place, Scratch& values) const {
  evaluate(place, values);
  return values[root_.value];
}

Value Expression::value(std::uint32_t n, const Place& place, const Scratch& values) const {
  const ir::Node& node = module_.nodes()[n];
  return support::match(
      node.what, [](const ir::Constant& c) { return ir::value_of(c); },
      [&](const ir::Symbol& s) { return symbol(s, place); },
      [&](const ir::Apply& a) {
        Value operands[ir::kMaxArity];
        for (std::size_t i = 0; i < node.operands.size(); ++i) operands[i] = values[node.operands[i].value];
        if (!exact_) return ir::info(a.op).wide(operands);
        const Value result = ir::info(a.op).exact(operands);
        const bool coarse = arithmetic_ == Arithmetic::plain && a.op == ir::Op::tanh_approx_f;
        return coarse ? ir::real_value(approximated(result.f)) : result;
      },
      [&](const ir::Load& l) { return load(l.input, node, values); },
      [&](const ir::Dot& d) { return dot(d, node, values); });
}

Value Expression::symbol(const ir::Symbol& s, const Place& at) const {
  const auto integer = [](std::int64_t x) { return ir::int_value(static_cast<std::int32_t>(x)); };
  switch (s.kind) {
    case SymbolKind::b: return integer(at.b);
    case SymbolKind::h: return integer(at.h);
    case SymbolKind::kv_h: return integer(at.kv_h);
    case SymbolKind::q: return integer(at.q);
    case SymbolKind::q_index: return integer(at.q_index);
    case SymbolKind::k: return integer(at.k);
    case SymbolKind::k_context: return ir::bool_value(at.context_key);
    case SymbolKind::score: return ir::real_value(at.score);
    case SymbolKind::out: return ir::real_value(at.out);
    case SymbolKind::lse: return ir::real_value(at.lse);
    case SymbolKind::q_axis: return integer(at.q_coordinate[s.index]);
    case SymbolKind::k_axis: return integer(at.context_key ? 0 : at.k_coordinate[s.index]);
    default: break;
  }
  if (const auto value = runtime::launch_value(problem_, s)) return *value;
  VICINAL_ASSERT(false, "a placeholder outside its function");
}

// Indices outside their dimension are clamped into it.
std::int64_t Expression::offset(std::uint32_t input, const ir::Node& node, std::size_t first,
                                std::size_t last, const Scratch& values) const {
  const runtime::CapturedInput& x = problem_.inputs[input];
  std::int64_t result = 0;
  for (std::size_t i = first; i < last; ++i) {
    const std::int64_t index = values[node.operands[i].value].i;
    result += std::clamp<std::int64_t>(index, 0, x.extents[i - first] - 1) * x.strides[i - first];
  }
  return result;
}

Value Expression::load(std::uint32_t input, const ir::Node& node, const Scratch& values) const {
  const runtime::CapturedInput& x = problem_.inputs[input];
  const double element =
      left_out(x) ? 0
                  : host::load_element(x.data, x.dtype, offset(input, node, 0, node.operands.size(), values));
  switch (node.type) {
    case ir::Type::integer:
      return ir::int_value(
          static_cast<std::int32_t>(static_cast<std::uint32_t>(static_cast<std::int64_t>(element))));
    case ir::Type::real:
      return ir::real_value(exact_ ? static_cast<double>(static_cast<float>(element)) : element);
    case ir::Type::boolean: return ir::bool_value(element != 0);
  }
  VICINAL_ASSERT(false, "a type");
}

Value Expression::dot(const ir::Dot& d, const ir::Node& node, const Scratch& values) const {
  const runtime::CapturedInput &x = problem_.inputs[d.first], &y = problem_.inputs[d.second];
  if (left_out(x) || left_out(y)) return ir::real_value(0);
  const std::int64_t x_at = offset(d.first, node, 0, d.first_indices, values);
  const std::int64_t y_at = offset(d.second, node, d.first_indices, node.operands.size(), values);
  float exact = 0;
  double wide = 0;
  for (std::int64_t i = 0; i < x.extents.back(); ++i) {
    const double a = host::load_element(x.data, x.dtype, x_at + i * x.strides.back());
    const double b = host::load_element(y.data, y.dtype, y_at + i * y.strides.back());
    wide += a * b;
    const float product = static_cast<float>(a) * static_cast<float>(b);
    exact += product;
  }
  return ir::real_value(exact_ ? static_cast<double>(exact) : wide);
}

}  // namespace vicinal::cpu
