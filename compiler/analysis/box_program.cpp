#include "compiler/analysis/box_program.h"

#include <algorithm>
#include <cmath>

#include "compiler/ir/reachable.h"
#include "compiler/support/check.h"
#include "compiler/support/match.h"

namespace vicinal::analysis {
namespace {

using ir::SymbolKind;
using ir::Type;
using ranges::Range;

// By node: whether its set holds one element on boxes of one token, whatever a launch brings. The rules are
// exact on single numbers but for what is NaN or divided by zero; comparisons and conversions pass that on.
std::vector<bool> surely_single(const ir::Module& module, std::uint32_t count) {
  std::vector<bool> single(count);
  for (std::uint32_t n = 0; n < count; ++n) {
    const ir::Node& node = module.nodes()[n];
    const bool real = node.type == Type::real;
    const bool exact = support::match(
        node.what, [&](const ir::Constant& c) { return !real || !std::isnan(ir::value_of(c).f); },
        [&](const ir::Apply& a) { return !real || a.op == ir::Op::float_i; },
        [&](const auto&) { return !real; });
    single[n] = exact && std::ranges::all_of(node.operands, [&](ir::NodeId id) { return single[id.value]; });
  }
  return single;
}

}  // namespace

BoxProgram::BoxProgram(const ir::Module& module, ir::NodeId root)
    : module_(module),
      root_(root),
      ranged_dimensions_(module.inputs.size()),
      inputs_read_(module.inputs.size()) {
  VICINAL_ASSERT(module[root].type == Type::boolean, "only a truth value is evaluated over boxes");
  const std::vector<std::uint8_t> varies = ir::variance(module);
  const std::vector<bool> reached = ir::reachable(module, root);
  const std::vector<bool> single = surely_single(module, root.value + 1);
  const auto ranged = [&](std::uint32_t input, const ir::Node& node, std::size_t first, std::size_t last) {
    inputs_read_[input] = true;
    for (std::size_t i = first; i < last; ++i) {
      const std::uint32_t index = node.operands[i].value;
      const auto dimension = static_cast<std::uint8_t>(1u << (i - first));
      if ((varies[index] & (ir::kQuery | ir::kKey)) != 0)
        ranged_dimensions_[input].spread_out |= dimension;
      else if (!single[index])
        ranged_dimensions_[input].uncertain |= dimension;
    }
  };
  for (std::uint32_t n = 0; n <= root.value; ++n) {
    if (!reached[n]) continue;
    const ir::Node& node = module.nodes()[n];
    const bool query = (varies[n] & ir::kQuery) != 0, key = (varies[n] & ir::kKey) != 0;
    const bool slice = (varies[n] & (ir::kBatch | ir::kHead)) != 0;
    steps_[query && key ? kPair
           : query      ? kQueries
           : key        ? kKeys
           : slice      ? kSlice
                        : kLaunchTime]
        .push_back(step(module, n));
    if (const auto* s = std::get_if<ir::Symbol>(&node.what)) {
      reads_batch_ |= s->kind == SymbolKind::b;
      reads_head_ |= s->kind == SymbolKind::h;
      reads_kv_head_ |= s->kind == SymbolKind::kv_h;
    } else if (const auto* load = std::get_if<ir::Load>(&node.what)) {
      ranged(load->input, node, 0, node.operands.size());
    } else if (const auto* d = std::get_if<ir::Dot>(&node.what)) {
      ranged(d->first, node, 0, d->first_indices);
      ranged(d->second, node, d->first_indices, node.operands.size());
    }
  }
}

BoxProgram::Step BoxProgram::step(const ir::Module& module, std::uint32_t n) {
  const ir::Node& node = module.nodes()[n];
  return support::match(
      node.what,
      [&](const ir::Constant&) {
        return Step{n, How::launch_time};
      },
      [&](const ir::Symbol& s) {
        switch (s.kind) {
          case SymbolKind::b: return Step{n, How::b};
          case SymbolKind::h: return Step{n, How::h};
          case SymbolKind::kv_h: return Step{n, How::kv_h};
          case SymbolKind::q: return Step{n, How::q};
          case SymbolKind::q_index: return Step{n, How::q_index};
          case SymbolKind::q_axis: return Step{n, How::q_axis, {}, s.index};
          case SymbolKind::k: return Step{n, How::k};
          case SymbolKind::k_axis: return Step{n, How::k_axis, {}, s.index};
          default: return Step{n, How::launch_time};
        }
      },
      [&](const ir::Apply& a) {
        Step step{n, How::apply, a.op};
        for (std::size_t i = 0; i < node.operands.size(); ++i) step.operands[i] = node.operands[i].value;
        return step;
      },
      [&](const ir::Load& l) {
        return Step{n, How::load, {}, l.input};
      },
      [&](const ir::Dot&) {
        return Step{n, How::dot};
      });
}

BoxProgram::Evaluator::Evaluator(const BoxProgram& program, const ir::SymbolLookup& launch,
                                 const InputRanges& inputs)
    : program_(program), launch_(launch), inputs_(inputs), values_(program.root_.value + 1) {
  run(kLaunchTime);
}

void BoxProgram::Evaluator::slice(int b, int h, int kv_h) {
  b_ = b;
  h_ = h;
  kv_h_ = kv_h;
  run(kSlice);
}
void BoxProgram::Evaluator::queries(const TokenBox& box) {
  queries_ = &box;
  run(kQueries);
}
void BoxProgram::Evaluator::keys(const TokenBox& box) {
  keys_ = &box;
  run(kKeys);
}
ranges::Truth BoxProgram::Evaluator::evaluate() {
  run(kPair);
  return values_[program_.root_.value].b;
}

void BoxProgram::Evaluator::run(int stage) {
  for (const Step& s : program_.steps_[stage]) {
    SetValue& value = values_[s.node];
    const auto node = [&]() -> const ir::Node& { return program_.module_.nodes()[s.node]; };
    switch (s.how) {
      case How::launch_time: value = launch_time(node()); break;
      case How::b: value.i = ranges::point(b_); break;
      case How::h: value.i = ranges::point(h_); break;
      case How::kv_h: value.i = ranges::point(kv_h_); break;
      case How::q: value.i = queries_->position; break;
      case How::q_index: value.i = queries_->index; break;
      case How::q_axis: value.i = queries_->coordinate[s.index]; break;
      case How::k: value.i = keys_->position; break;
      case How::k_axis: value.i = keys_->coordinate[s.index]; break;
      case How::apply:
        value = apply_rule(s.op, values_[s.operands[0]], values_[s.operands[1]], values_[s.operands[2]]);
        break;
      case How::load: value = load(node(), s.index); break;
      case How::dot: value = dot(node()); break;
    }
  }
}

SetValue BoxProgram::Evaluator::launch_time(const ir::Node& node) const {
  const auto* constant = std::get_if<ir::Constant>(&node.what);
  const std::optional<ir::Value> v =
      constant != nullptr ? ir::value_of(*constant) : launch_(std::get<ir::Symbol>(node.what));
  VICINAL_ASSERT(v.has_value(), "a mask reads what a launch does not know");
  return single(node.type, *v);
}

std::span<const Range> BoxProgram::Evaluator::indices(const ir::Node& node, std::size_t first,
                                                      std::size_t last, Range* out) const {
  for (std::size_t i = first; i < last; ++i) out[i - first] = values_[node.operands[i].value].i;
  return {out, last - first};
}

SetValue BoxProgram::Evaluator::load(const ir::Node& node, std::uint32_t input) const {
  Range index[InputRanges::kMaxIndices];
  const std::span<const Range> all = indices(node, 0, node.operands.size(), index);
  switch (node.type) {
    case Type::integer: return {.i = inputs_.integers(input, all)};
    case Type::real: return {.f = inputs_.reals(input, all)};
    case Type::boolean: return {.b = inputs_.truths(input, all)};
  }
  VICINAL_ASSERT(false, "a type");
}

SetValue BoxProgram::Evaluator::dot(const ir::Node& node) const {
  const auto& d = std::get<ir::Dot>(node.what);
  Range first[InputRanges::kMaxIndices], second[InputRanges::kMaxIndices];
  const std::span<const Range> x = indices(node, 0, d.first_indices, first);
  const std::span<const Range> y = indices(node, d.first_indices, node.operands.size(), second);
  return {.f = inputs_.dot(d.first, x, d.second, y)};
}

}  // namespace vicinal::analysis
