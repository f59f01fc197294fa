// Scalar types of the IR and the values they hold.
#pragma once

#include <cstdint>
#include <string_view>

namespace vicinal::ir {

enum class Type : std::uint8_t { integer, real, boolean };

constexpr std::string_view name_of(Type t) {
  return t == Type::integer ? "int" : t == Type::real ? "float" : "bool";
}

// A value during evaluation; the node's type says which member holds it. `f` is a double in both modes of
// evaluation: the exact mode (masks) rounds it to fp32 after every operation, the wide mode (scores) does
// not.
union Value {
  std::int32_t i;
  double f;
  bool b;
};

constexpr Value int_value(std::int32_t i) {
  return Value{.i = i};
}
constexpr Value real_value(double f) {
  return Value{.f = f};
}
constexpr Value bool_value(bool b) {
  return Value{.b = b};
}

}  // namespace vicinal::ir
