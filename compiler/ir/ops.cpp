#include "compiler/ir/ops.h"

#include <array>
#include <cmath>
#include <limits>
#include <tuple>
#include <type_traits>
#include <unordered_map>

namespace vicinal::ir {
namespace {

constexpr std::int32_t wrap(std::int64_t x) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(x));
}

constexpr std::int32_t floor_divide(std::int32_t x, std::int32_t y) {
  if (y == 0) return 0;
  const std::int64_t a = x, b = y, quotient = a / b;
  return wrap(quotient - (a % b != 0 && (a < 0) != (b < 0)));
}

constexpr std::int32_t floor_modulo(std::int32_t x, std::int32_t y) {
  if (y == 0) return 0;
  const std::int64_t a = x, b = y, remainder = a % b;
  return static_cast<std::int32_t>(remainder != 0 && (remainder < 0) != (b < 0) ? remainder + b : remainder);
}

constexpr std::int32_t shift_left(std::int32_t x, std::int32_t n) {
  return n < 0 || n > 31 ? 0 : static_cast<std::int32_t>(static_cast<std::uint32_t>(x) << n);
}

constexpr std::int32_t shift_right(std::int32_t x, std::int32_t n) {
  if (n < 0 || n > 31) return x < 0 ? -1 : 0;
  return x >> n;
}

// IEEE 754-2019 minimumNumber: a number wins over NaN, and -0 lies below +0.
template <class F>
F minimum_number(F x, F y) {
  if (std::isnan(x)) return y;
  if (std::isnan(y)) return x;
  if (x == y) return std::signbit(x) ? x : y;
  return x < y ? x : y;
}

// Toward zero; saturates; NaN is 0.
template <class F>
std::int32_t truncate(F x) {
  if (std::isnan(x)) return 0;
  if (x >= F(2147483648.0)) return std::numeric_limits<std::int32_t>::max();
  if (x <= F(-2147483648.0)) return std::numeric_limits<std::int32_t>::min();
  return static_cast<std::int32_t>(x);
}

template <class F, Type type>
auto unwrap(const Value& v) {
  if constexpr (type == Type::integer)
    return v.i;
  else if constexpr (type == Type::real)
    return static_cast<F>(v.f);
  else
    return v.b;
}

template <Type type, bool round, class R>
Value rewrap(R r) {
  if constexpr (type == Type::integer)
    return int_value(r);
  else if constexpr (type == Type::boolean)
    return bool_value(r);
  else
    return real_value(round ? static_cast<double>(static_cast<float>(r)) : static_cast<double>(r));
}

struct Signature {
  int arity = 0;
  Type operands[kMaxArity] = {};
  Type result = Type::integer;
};

constexpr Type type_of_letter(char c) {
  return c == 'i' ? Type::integer : c == 'f' ? Type::real : Type::boolean;
}

constexpr Signature parse_signature(std::string_view text) {
  Signature s;
  std::size_t at = 0;
  for (; text[at] != '>'; ++at) s.operands[s.arity++] = type_of_letter(text[at]);
  s.result = type_of_letter(text[at + 1]);
  return s;
}

// F: the type that float operands are handed over in. round: whether a float result is rounded to fp32.
template <class Row, class F, bool round>
Value evaluate(const Value* v) {
  constexpr Signature s = Row::signature();
  return [&]<std::size_t... I>(std::index_sequence<I...>) {
    return rewrap<s.result, round>(Row::apply(unwrap<F, s.operands[I]>(v[I])...));
  }
  (std::make_index_sequence<static_cast<std::size_t>(s.arity)>());
}

enum Traits { kPlain = 0, kC = 1, kT = 2 };

template <class Row>
constexpr OpInfo make_info(Op op, std::string_view name, int traits, std::string_view cuda,
                           std::string_view exact_cuda) {
  constexpr Signature s = Row::signature();
  OpInfo info{op,
              name,
              s.arity,
              {},
              s.result,
              (traits & kC) != 0,
              (traits & kT) != 0,
              cuda,
              exact_cuda.empty() ? cuda : exact_cuda,
              nullptr,
              nullptr};
  for (int i = 0; i < s.arity; ++i) info.operands[i] = s.operands[i];
  info.exact = (traits & kT) != 0 ? evaluate<Row, double, true> : evaluate<Row, float, true>;
  info.wide = evaluate<Row, double, false>;
  return info;
}

#define VICINAL_OP(id, name, text, traits, cuda, exact_cuda, ...)            \
  struct Row_##id {                                                          \
    static constexpr Signature signature() { return parse_signature(text); } \
    template <class... A>                                                    \
    static auto apply(A... a) {                                              \
      return (__VA_ARGS__)(a...);                                            \
    }                                                                        \
  };
#include "compiler/ir/ops.def"

constexpr OpInfo kOps[] = {
#define VICINAL_OP(id, name, text, traits, cuda, exact_cuda, ...) \
  make_info<Row_##id>(Op::id, name, kPlain | k##traits, cuda, exact_cuda),
#define k kPlain
#include "compiler/ir/ops.def"
#undef k
};

}  // namespace

const OpInfo& info(Op op) {
  return kOps[static_cast<std::size_t>(op)];
}
std::span<const OpInfo> all_ops() {
  return kOps;
}

const OpInfo* find_op(std::string_view name) {
  static const auto by_name = [] {
    std::unordered_map<std::string_view, const OpInfo*> map;
    for (const OpInfo& op : kOps) map.emplace(op.name, &op);
    return map;
  }();
  const auto it = by_name.find(name);
  return it == by_name.end() ? nullptr : it->second;
}

}  // namespace vicinal::ir
