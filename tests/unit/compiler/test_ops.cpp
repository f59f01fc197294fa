// Host evaluation of every operation, against formulas written down a second time and against the functions
// that kernels use.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <string>

#include "compiler/ir/ops.h"
#include "vicinal/numeric.cuh"

namespace vicinal {
namespace {

using ir::Type;
using ir::Value;
using Wide = std::int64_t;

constexpr int kMin = std::numeric_limits<int>::min(), kMax = std::numeric_limits<int>::max();
const int kInts[] = {0,  1,   -1,  2,     -2,    3,    7,        -7,   31,      32,
                     33, -31, 255, 65536, 46341, kMax, kMax - 1, kMin, kMin + 1};
const float kFloats[] = {0.0f,          -0.0f,          1.0f,    -1.0f,      0.5f,      -1.5f,
                         2.5f,          3.0f,           1e-40f,  3.1415927f, 100.0f,    -1e30f,
                         2147483648.0f, -2147483904.0f, 3.4e38f, INFINITY,   -INFINITY, NAN};

int wrapped(Wide x) {
  return static_cast<int>(static_cast<std::uint32_t>(x));
}
Wide floored(Wide x, Wide y) {
  return static_cast<Wide>(std::floor(static_cast<double>(x) / static_cast<double>(y)));
}
Wide power_of_two(int n) {
  return Wide{1} << n;
}

using IntFormula = std::function<int(int, int)>;
const std::map<std::string_view, IntFormula> kIntFormulas = {
    {"add.i", [](int x, int y) { return wrapped(Wide{x} + y); }},
    {"sub.i", [](int x, int y) { return wrapped(Wide{x} - y); }},
    {"mul.i", [](int x, int y) { return wrapped(Wide{x} * y); }},
    {"neg.i", [](int x, int) { return wrapped(-Wide{x}); }},
    {"floordiv.i", [](int x, int y) { return y == 0 ? 0 : wrapped(floored(x, y)); }},
    {"floormod.i", [](int x, int y) { return y == 0 ? 0 : wrapped(x - floored(x, y) * y); }},
    {"min.i", [](int x, int y) { return std::min(x, y); }},
    {"max.i", [](int x, int y) { return std::max(x, y); }},
    {"abs.i", [](int x, int) { return x == kMin ? kMin : std::abs(x); }},
    {"sign.i", [](int x, int) { return x == 0  ? 0
                                       : x < 0 ? -1
                                               : 1; }},
    {"bitand.i", [](int x, int y) { return x & y; }},
    {"bitor.i", [](int x, int y) { return x | y; }},
    {"bitxor.i", [](int x, int y) { return x ^ y; }},
    {"bitnot.i", [](int x, int) { return -x - 1; }},
    {"shl.i", [](int x, int n) { return n < 0 || n > 31 ? 0 : wrapped(x * power_of_two(n)); }},
    {"shr.i",
     [](int x, int n) { return n < 0 || n > 31 ? (x < 0 ? -1 : 0) : wrapped(floored(x, power_of_two(n))); }},
    {"eq.i", [](int x, int y) { return x == y; }},
    {"ne.i", [](int x, int y) { return x != y; }},
    {"lt.i", [](int x, int y) { return x < y; }},
    {"le.i", [](int x, int y) { return x <= y; }},
};
// What kernels call, where that is a function that a host can call too.
const std::map<std::string_view, IntFormula> kKernelInts = {
    {"add.i", add},
    {"sub.i", sub},
    {"mul.i", mul},
    {"floordiv.i", floordiv},
    {"floormod.i", floormod},
    {"shl.i", shl},
    {"shr.i", shr},
    {"neg.i", [](int x, int) { return neg(x); }},
    {"abs.i", [](int x, int) { return vicinal::abs(x); }},
    {"min.i", [](int x, int y) { return vicinal::min(x, y); }},
    {"max.i", [](int x, int y) { return vicinal::max(x, y); }},
    {"sign.i", [](int x, int) { return sign(x); }},
};

float number_min(float x, float y) {
  if (std::isnan(x) || std::isnan(y)) return std::isnan(x) ? y : x;
  if (x == 0 && y == 0) return std::signbit(x) || std::signbit(y) ? -0.0f : 0.0f;
  return x < y ? x : y;
}
float once(double x) {
  return static_cast<float>(x);
}
using FloatFormula = std::function<double(float, float)>;
const std::map<std::string_view, FloatFormula> kFloatFormulas = {
    {"add.f", [](float x, float y) { return x + y; }},
    {"sub.f", [](float x, float y) { return x - y; }},
    {"mul.f", [](float x, float y) { return x * y; }},
    {"div.f", [](float x, float y) { return x / y; }},
    {"neg.f", [](float x, float) { return -x; }},
    {"floordiv.f", [](float x, float y) { return std::floor(x / y); }},
    {"floormod.f",
     [](float x, float y) {
       const float whole = std::floor(x / y), product = y * whole;
       return x - product;
     }},
    {"min.f", number_min},
    {"max.f", [](float x, float y) { return -number_min(-x, -y); }},
    {"abs.f", [](float x, float) { return std::fabs(x); }},
    {"sign.f", [](float x, float) { return vicinal::sign(x); }},
    {"floor.f", [](float x, float) { return std::floor(x); }},
    {"ceil.f", [](float x, float) { return std::ceil(x); }},
    {"round.f", [](float x, float) { return std::nearbyint(x); }},
    {"sqrt.f", [](float x, float) { return std::sqrt(x); }},
    {"isnan.f", [](float x, float) { return std::isnan(x); }},
    {"eq.f", [](float x, float y) { return x == y; }},
    {"ne.f", [](float x, float y) { return !(x == y); }},
    {"lt.f", [](float x, float y) { return x < y; }},
    {"le.f", [](float x, float y) { return x <= y; }},
    {"int.f", [](float x, float) { return to_int(x); }},
    {"pow.f", [](float x, float y) { return once(std::pow(double{x}, double{y})); }},
    {"exp.f", [](float x, float) { return once(std::exp(double{x})); }},
    {"exp2.f", [](float x, float) { return once(std::exp2(double{x})); }},
    {"log.f", [](float x, float) { return once(std::log(double{x})); }},
    {"log2.f", [](float x, float) { return once(std::log2(double{x})); }},
    {"rsqrt.f", [](float x, float) { return once(1 / std::sqrt(double{x})); }},
    {"tanh.f", [](float x, float) { return once(std::tanh(double{x})); }},
    {"tanh_approx.f", [](float x, float) { return once(std::tanh(double{x})); }},
    {"sigmoid.f", [](float x, float) { return once(1 / (1 + std::exp(-double{x}))); }},
    {"sin.f", [](float x, float) { return once(std::sin(double{x})); }},
    {"cos.f", [](float x, float) { return once(std::cos(double{x})); }},
    {"tan.f", [](float x, float) { return once(std::tan(double{x})); }},
    {"erf.f", [](float x, float) { return once(std::erf(double{x})); }},
};

double as_double(Type type, Value v) {
  return type == Type::integer ? v.i : type == Type::real ? v.f : v.b;
}
bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

TEST_CASE("every operation does what its formula says") {
  for (const ir::OpInfo& op : ir::all_ops()) {
    CAPTURE(std::string(op.name));
    if (const auto ints = kIntFormulas.find(op.name); ints != kIntFormulas.end()) {
      const auto kernel = kKernelInts.find(op.name);
      for (int x : kInts)
        for (int y : kInts) {
          CAPTURE(x);
          CAPTURE(y);
          const Value operands[] = {ir::int_value(x), ir::int_value(y)};
          CHECK(as_double(op.result, op.exact(operands)) == ints->second(x, y));
          CHECK(as_double(op.result, op.wide(operands)) == ints->second(x, y));
          if (kernel != kKernelInts.end()) CHECK(kernel->second(x, y) == ints->second(x, y));
        }
    } else if (const auto floats = kFloatFormulas.find(op.name); floats != kFloatFormulas.end()) {
      for (float x : kFloats)
        for (float y : kFloats) {
          CAPTURE(x);
          CAPTURE(y);
          const Value operands[] = {ir::real_value(x), ir::real_value(y)};
          CHECK(same(as_double(op.result, op.exact(operands)), floats->second(x, y)));
        }
    } else if (op.operands[0] == Type::boolean && op.operands[op.arity - 1] == Type::boolean &&
               op.arity <= 2) {
      for (int bits = 0; bits < 4; ++bits) {
        const bool x = (bits & 1) != 0, y = (bits & 2) != 0;
        const Value operands[] = {ir::bool_value(x), ir::bool_value(y)};
        const double expected = op.name == "and.b"   ? x && y
                                : op.name == "or.b"  ? x || y
                                : op.name == "eq.b"  ? x == y
                                : op.name == "ne.b"  ? x != y
                                : op.name == "not.b" ? !x
                                                     : x;
        CHECK(as_double(op.result, op.exact(operands)) == expected);
      }
    } else if (op.arity == 3) {
      for (bool c : {false, true}) {
        const auto of = [&](int i) {
          return op.result == Type::integer ? ir::int_value(i)
                 : op.result == Type::real  ? ir::real_value(i)
                                            : ir::bool_value(i == 1);
        };
        const Value operands[] = {ir::bool_value(c), of(1), of(2)};
        CHECK(as_double(op.result, op.exact(operands)) == as_double(op.result, of(c ? 1 : 2)));
      }
    } else {
      CHECK(op.name == "float.i");  // nothing else is without a formula
      for (int x : kInts) {
        const Value operand = ir::int_value(x);
        CHECK(op.exact(&operand).f == static_cast<float>(x));
      }
    }
  }
}

TEST_CASE("the edges that the reference names") {
  const auto on_ints = [](ir::Op op, int x, int y) {
    const Value operands[] = {ir::int_value(x), ir::int_value(y)};
    return ir::info(op).exact(operands).i;
  };
  CHECK(on_ints(ir::Op::floordiv_i, kMin, -1) == kMin);
  CHECK(on_ints(ir::Op::floormod_i, kMin, -1) == 0);
  CHECK(on_ints(ir::Op::floordiv_i, 5, 0) == 0);
  CHECK(on_ints(ir::Op::floormod_i, 5, 0) == 0);
  CHECK(on_ints(ir::Op::floordiv_i, -7, 2) == -4);
  CHECK(on_ints(ir::Op::floormod_i, -7, 2) == 1);
  CHECK(on_ints(ir::Op::floormod_i, 7, -2) == -1);
  CHECK(on_ints(ir::Op::shl_i, 1, 32) == 0);
  CHECK(on_ints(ir::Op::shr_i, -8, 40) == -1);
  CHECK(on_ints(ir::Op::abs_i, kMin, 0) == kMin);
}

TEST_CASE("the table says what is commutative, and only of what is") {
  for (const ir::OpInfo& op : ir::all_ops()) {
    if (!op.commutative || op.operands[0] != Type::real) continue;
    CAPTURE(std::string(op.name));
    for (float x : kFloats)
      for (float y : kFloats) {
        const Value xy[] = {ir::real_value(x), ir::real_value(y)},
                    yx[] = {ir::real_value(y), ir::real_value(x)};
        CHECK(same(as_double(op.result, op.exact(xy)), as_double(op.result, op.exact(yx))));
      }
  }
}

}  // namespace
}  // namespace vicinal
