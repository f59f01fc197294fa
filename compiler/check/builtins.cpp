#include "compiler/check/builtins.h"

#include <algorithm>
#include <array>

namespace vicinal::check {
namespace {

using ir::Module;
using ir::NodeId;
using ir::Op;
using Arguments = std::span<const NodeId>;

NodeId silu(Module& m, Arguments x) {
  return m.apply(Op::mul_f, {x[0], m.apply(Op::sigmoid_f, {x[0]})});
}
NodeId relu(Module& m, Arguments x) {
  return m.apply(Op::max_f, {x[0], m.constant(0.0f)});
}
NodeId gelu(Module& m, Arguments x) {
  const NodeId erf = m.apply(Op::erf_f, {m.apply(Op::mul_f, {x[0], m.constant(0.70710678118654752f)})});
  const NodeId weight = m.apply(Op::mul_f, {m.constant(0.5f), m.apply(Op::add_f, {m.constant(1.0f), erf})});
  return m.apply(Op::mul_f, {x[0], weight});
}

constexpr Builtin op(std::string_view name, Op f, std::string_view doc) {
  return {name, 1, false, std::nullopt, f, nullptr, doc};
}

constexpr Builtin kBuiltins[] = {
    {"abs", 1, false, Op::abs_i, Op::abs_f, nullptr, "absolute value; of the smallest int, itself"},
    {"min", 2, true, Op::min_i, Op::min_f, nullptr, "smallest; a number wins over NaN"},
    {"max", 2, true, Op::max_i, Op::max_f, nullptr, "largest; a number wins over NaN"},
    {"sign", 1, false, Op::sign_i, Op::sign_f, nullptr, "-1, 0 or 1, in the argument's type"},
    op("floor", Op::floor_f, "largest integer not above, as float"),
    op("ceil", Op::ceil_f, "smallest integer not below, as float"),
    op("round", Op::round_f, "nearest integer, halves to even, as float"),
    op("exp", Op::exp_f, "e to the x"),
    op("exp2", Op::exp2_f, "2 to the x"),
    op("log", Op::log_f, "natural logarithm"),
    op("log2", Op::log2_f, "logarithm to base 2"),
    op("sqrt", Op::sqrt_f, "square root, correctly rounded"),
    op("rsqrt", Op::rsqrt_f, "1 / sqrt(x)"),
    op("tanh", Op::tanh_f, "hyperbolic tangent"),
    op("tanh_approx", Op::tanh_approx_f, "tanh within 2^-10 relative: the GPU's instruction"),
    op("sigmoid", Op::sigmoid_f, "1 / (1 + exp(-x))"),
    op("sin", Op::sin_f, "sine of radians"),
    op("cos", Op::cos_f, "cosine of radians"),
    op("tan", Op::tan_f, "tangent of radians"),
    op("erf", Op::erf_f, "error function"),
    op("isnan", Op::isnan_f, "whether x is not a number"),
    {"gelu", 1, false, std::nullopt, std::nullopt, gelu, "x (1 + erf(x / sqrt 2)) / 2"},
    {"silu", 1, false, std::nullopt, std::nullopt, silu, "x sigmoid(x)"},
    {"relu", 1, false, std::nullopt, std::nullopt, relu, "max(x, 0)"},
};

constexpr std::string_view kSpecial[] = {"int", "float", "bool", "len", "dot", "sum", "any", "clamp"};

}  // namespace

std::span<const Builtin> builtins() {
  return kBuiltins;
}

const Builtin* find_builtin(std::string_view name) {
  for (const Builtin& b : kBuiltins)
    if (b.name == name) return &b;
  return nullptr;
}

bool is_special_function(std::string_view name) {
  return std::ranges::find(kSpecial, name) != std::end(kSpecial);
}

}  // namespace vicinal::check
