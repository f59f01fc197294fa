#include "compiler/check/foreign_names.h"

#include <algorithm>
#include <iterator>

namespace vicinal::check {
namespace {

constexpr ForeignName kNames[] = {
    {"q_idx", "q", ""},
    {"query_idx", "q", ""},
    {"m", "q", ""},
    {"kv_idx", "k", ""},
    {"k_idx", "k", ""},
    {"key_idx", "k", ""},
    {"b_idx", "b", ""},
    {"batch_idx", "b", ""},
    {"h_idx", "h", ""},
    {"head_idx", "h", ""},
    {"head", "h", ""},
    {"kv_head_idx", "kv_h", ""},
    {"num_heads", "heads", ""},
    {"seq_len", "tokens", "`tokens` counts queries and `keys` counts keys"},
    {"seqlen", "tokens", "`tokens` counts queries and `keys` counts keys"},
    {"True", "true", ""},
    {"False", "false", ""},
    {"None", "", "leave the statement out instead"},
    {"where", "", "write `a if condition else b`"},
    {"maximum", "max", ""},
    {"minimum", "min", ""},
    {"fmaxf", "max", ""},
    {"fminf", "min", ""},
    {"clip", "clamp", ""},
    {"pow", "", "write `x ** y`"},
    {"powf", "", "write `x ** y`"},
    {"expf", "exp", ""},
    {"logf", "log", ""},
    {"tanhf", "tanh", ""},
    {"sqrtf", "sqrt", ""},
    {"fabs", "abs", ""},
    {"fabsf", "abs", ""},
    {"logical_and", "", "write `a and b`"},
    {"logical_or", "", "write `a or b`"},
    {"logical_not", "", "write `not a`"},
    {"bitwise_and", "", "write `a & b`"},
    {"bitwise_or", "", "write `a | b`"},
    {"bitwise_xor", "", "write `a ^ b`"},
    {"remainder", "", "write `a % b`"},
    {"fmod", "", "write `a % b`, which takes the sign of b"},
    {"floor_divide", "", "write `a // b`"},
    {"softmax", "", "the softmax is part of the operation; `normalize` chooses another one"},
    {"return", "", "assign the result: `score = ...` or `mask = ...`"},
    {"lambda", "", "define a function with `fn name(x: int) -> int = expression`"},
    {"float32", "float", ""},
    {"int32", "int", ""},
};
constexpr std::string_view kModules[] = {"torch", "np", "numpy", "math", "std", "jnp", "tl", "F", "cmath"};

}  // namespace

const ForeignName* find_foreign_name(std::string_view name) {
  for (const ForeignName& f : kNames)
    if (f.written == name) return &f;
  return nullptr;
}

bool is_foreign_module(std::string_view name) {
  return std::ranges::find(kModules, name) != std::end(kModules);
}

}  // namespace vicinal::check
