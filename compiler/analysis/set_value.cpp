#include "compiler/analysis/set_value.h"

#include <type_traits>
#include <utility>

#include "compiler/ir/ops.h"
#include "compiler/support/check.h"

namespace vicinal::analysis {

using ranges::Range;
using ranges::RealRange;

SetValue single(ir::Type type, ir::Value value) {
  switch (type) {
    case ir::Type::integer: return {.i = ranges::point(value.i)};
    case ir::Type::real: return {.f = ranges::point(static_cast<float>(value.f))};
    case ir::Type::boolean: return {.b = ranges::point(value.b)};
  }
  VICINAL_ASSERT(false, "a type");
}

SetValue anything(ir::Type type) {
  switch (type) {
    case ir::Type::integer: return {.i = ranges::any_int()};
    case ir::Type::real: return {.f = ranges::any_real()};
    case ir::Type::boolean: return {.b = ranges::any_truth()};
  }
  VICINAL_ASSERT(false, "a type");
}

// The operation's rule, its sets integers, floats or truth values as its signature says. Transcendental ones
// are computed where their operands are single numbers, and may be anything elsewhere.
SetValue apply_rule(ir::Op op, const SetValue& x, const SetValue& y, const SetValue& z) {
  struct Set {
    const SetValue& value;
    operator Range() const { return value.i; }
    operator ranges::RealRange() const { return value.f; }
    operator ranges::Truth() const { return value.b; }
  };
  const Set operands[ir::kMaxArity] = {{x}, {y}, {z}};
  const auto call = [&]<class R, class... A>(R (*rule)(A...)) {
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
      const R result = rule(operands[I]...);
      SetValue value;
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
      const RealRange operand = operands[i];
      if (!ranges::is_point(operand)) return SetValue{.f = ranges::any_real()};
      numbers[i] = ir::real_value(static_cast<double>(operand.low));
    }
    return SetValue{.f = ranges::point(static_cast<float>(info.exact(numbers).f))};
  };
  switch (op) {
#define VICINAL_RULE_(id) \
  case ir::Op::id:        \
    return call(ranges::id);
#define VICINAL_RULE_C(id) VICINAL_RULE_(id)
#define VICINAL_RULE_T(id) \
  case ir::Op::id:         \
    return compute();
#define VICINAL_OP(id, name, text, traits, ...) VICINAL_RULE_##traits(id)
#include "compiler/ir/ops.def"
#undef VICINAL_RULE_
#undef VICINAL_RULE_C
#undef VICINAL_RULE_T
  }
  VICINAL_ASSERT(false, "an operation outside the table");
}

}  // namespace vicinal::analysis
