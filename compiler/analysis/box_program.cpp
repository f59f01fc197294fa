#include "compiler/analysis/box_program.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "compiler/support/check.h"
#include "compiler/support/match.h"

namespace vicinal::analysis {
namespace {

using ir::Op;
using ir::SymbolKind;
using ir::Type;
using ranges::Range;

constexpr std::size_t kMaxIndices = 5;

}  // namespace

BoxProgram::BoxProgram(const ir::Module& module, ir::NodeId root)
    : module_(module),
      root_(root),
      ranged_dimensions_(module.inputs.size()),
      inputs_read_(module.inputs.size()) {
  VICINAL_ASSERT(module[root].type == Type::boolean, "only a truth value is evaluated over boxes");
  const std::vector<std::uint8_t> varies = ir::variance(module);
  std::vector<bool> reached(root.value + 1);
  reached[root.value] = true;
  for (std::uint32_t n = root.value + 1; n-- > 0;)
    if (reached[n])
      for (ir::NodeId id : module.nodes()[n].operands) reached[id.value] = true;
  const auto ranged = [&](std::uint32_t input, const ir::Node& node, std::size_t first, std::size_t last) {
    inputs_read_[input] = true;
    for (std::size_t i = first; i < last; ++i)
      if ((varies[node.operands[i].value] & (ir::kQuery | ir::kKey)) != 0)
        ranged_dimensions_[input] |= static_cast<std::uint8_t>(1u << (i - first));
  };
  for (std::uint32_t n = 0; n <= root.value; ++n) {
    if (!reached[n]) continue;
    const ir::Node& node = module.nodes()[n];
    const bool query = (varies[n] & ir::kQuery) != 0, key = (varies[n] & ir::kKey) != 0;
    const bool slice = (varies[n] & (ir::kBatch | ir::kHead)) != 0;
    steps_[query && key ? kPair : query ? kQueries : key ? kKeys : slice ? kSlice : kLaunchTime].push_back(n);
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
  const auto integer = [](Range r) { return Value{.i = r}; };
  for (const std::uint32_t n : program_.steps_[stage]) {
    const ir::Node& node = program_.module_.nodes()[n];
    values_[n] = support::match(
        node.what,
        [&](const ir::Constant& c) {
          const ir::Value v = ir::value_of(c);
          switch (c.type) {
            case Type::integer: return integer(ranges::point(v.i));
            case Type::real: return Value{.f = ranges::point(static_cast<float>(v.f))};
            case Type::boolean: return Value{.b = ranges::point(v.b)};
          }
          VICINAL_ASSERT(false, "a type");
        },
        [&](const ir::Symbol& s) {
          switch (s.kind) {
            case SymbolKind::b: return integer(ranges::point(b_));
            case SymbolKind::h: return integer(ranges::point(h_));
            case SymbolKind::kv_h: return integer(ranges::point(kv_h_));
            case SymbolKind::q: return integer(queries_->position);
            case SymbolKind::q_index: return integer(queries_->index);
            case SymbolKind::q_axis: return integer(queries_->coordinate[s.index]);
            case SymbolKind::k: return integer(keys_->position);
            case SymbolKind::k_axis: return integer(keys_->coordinate[s.index]);
            default: break;
          }
          const std::optional<ir::Value> v = launch_(s);
          VICINAL_ASSERT(v.has_value(), "a mask reads what a launch does not know");
          if (node.type == Type::integer) return integer(ranges::point(v->i));
          if (node.type == Type::real) return Value{.f = ranges::point(static_cast<float>(v->f))};
          return Value{.b = ranges::point(v->b)};
        },
        [&](const ir::Apply& a) {
          const Value* operands[ir::kMaxArity] = {};
          for (std::size_t i = 0; i < node.operands.size(); ++i)
            operands[i] = &values_[node.operands[i].value];
          return apply(a.op, operands);
        },
        [&](const ir::Load& l) { return load(node, l.input); },
        [&](const ir::Dot& d) { return dot(node, d); });
  }
}

// The operation's rule, its sets integers, floats or truth values as its signature says. Transcendental ones
// are computed where their operands are single numbers, and may be anything elsewhere.
BoxProgram::Evaluator::Value BoxProgram::Evaluator::apply(Op op, const Value* const* operands) {
  struct Set {
    const Value& value;
    operator Range() const { return value.i; }
    operator ranges::RealRange() const { return value.f; }
    operator ranges::Truth() const { return value.b; }
  };
  const auto call = [&]<class R, class... A>(R (*rule)(A...)) {
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
      const R result = rule(Set{*operands[I]}...);
      Value value;
      if constexpr (std::is_same_v<R, Range>)
        value.i = result;
      else if constexpr (std::is_same_v<R, ranges::RealRange>)
        value.f = result;
      else
        value.b = result;
      return value;
    }
    (std::index_sequence_for<A...>());
  };
  const auto compute = [&] {
    const ir::OpInfo& info = ir::info(op);
    ir::Value numbers[ir::kMaxArity];
    for (int i = 0; i < info.arity; ++i) {
      if (!ranges::is_point(operands[i]->f)) return Value{.f = ranges::any_real()};
      numbers[i] = ir::real_value(static_cast<double>(operands[i]->f.low));
    }
    return Value{.f = ranges::point(static_cast<float>(info.exact(numbers).f))};
  };
  switch (op) {
#define VICINAL_RULE_(id) \
  case Op::id:            \
    return call(ranges::id);
#define VICINAL_RULE_C(id) VICINAL_RULE_(id)
#define VICINAL_RULE_T(id) \
  case Op::id:             \
    return compute();
#define VICINAL_OP(id, name, text, traits, ...) VICINAL_RULE_##traits(id)
#include "compiler/ir/ops.def"
#undef VICINAL_RULE_
#undef VICINAL_RULE_C
#undef VICINAL_RULE_T
  }
  VICINAL_ASSERT(false, "an operation outside the table");
}

// Clamped into the input, as a read is.
std::size_t BoxProgram::Evaluator::indices(const ir::Node& node, std::size_t first, std::size_t last,
                                           std::uint32_t input, Range* out) const {
  for (std::size_t i = first; i < last; ++i) {
    const auto most = static_cast<int>(inputs_.extent(input, i - first) - 1);
    out[i - first] = ranges::min_i(ranges::max_i(values_[node.operands[i].value].i, ranges::point(0)),
                                   ranges::point(most));
  }
  return last - first;
}

BoxProgram::Evaluator::Value BoxProgram::Evaluator::load(const ir::Node& node, std::uint32_t input) const {
  Range index[kMaxIndices];
  const std::span<const Range> all(index, indices(node, 0, node.operands.size(), input, index));
  switch (node.type) {
    case Type::integer: return {.i = inputs_.integers(input, all)};
    case Type::real: return {.f = inputs_.reals(input, all)};
    case Type::boolean: return {.b = inputs_.truths(input, all)};
  }
  VICINAL_ASSERT(false, "a type");
}

BoxProgram::Evaluator::Value BoxProgram::Evaluator::dot(const ir::Node& node, const ir::Dot& d) const {
  Range first[kMaxIndices], second[kMaxIndices];
  const std::span<const Range> x(first, indices(node, 0, d.first_indices, d.first, first));
  const std::span<const Range> y(second,
                                 indices(node, d.first_indices, node.operands.size(), d.second, second));
  const auto is_point = [](Range r) { return ranges::is_point(r); };
  if (!std::ranges::all_of(x, is_point) || !std::ranges::all_of(y, is_point))
    return {.f = ranges::any_real()};
  return {.f = ranges::point(inputs_.dot(d.first, x, d.second, y))};
}

}  // namespace vicinal::analysis
