// What an operation can give when its operands are known only to lie in a set: the arithmetic by which tiles
// are proved empty or full, on the host and in planning kernels.
//
// Every function takes a set for each operand and returns a set that holds the operation's result for every
// choice of elements: it may be larger than it need be, never smaller. Of single numbers the result is exact.
// Functions are named as in compiler/ir/ops.def. Transcendental operations are missing: a mask applies them
// to values that depend on neither query nor key, and those are computed, not bounded.
//
// Integers are strided intervals (Reps, Balakrishnan and Lim, "Intermediate-representation recovery from
// low-level code", PEPM 2006), so that a dilation or a remainder survives; an operation that may wrap gives
// every int. Floats are closed intervals: each operation is one fp32 rounding of a function that is monotone
// in every operand, rounding is monotone too, and so the corners computed in fp32 bound the results exactly.
#pragma once

#include "vicinal/numeric.cuh"

namespace vicinal::ranges {

constexpr float kInfinity = __builtin_bit_cast(float, 0x7f800000);
constexpr i64 kLowestInt = -2147483648LL, kHighestInt = 2147483647LL;

// low, low + step, ..., high. The step is 0 exactly when there is one element.
struct Range {
  int low, high;
  u32 step;
};
// Every element that is not NaN lies between low and high.
struct RealRange {
  float low, high;
  bool nan;
};
struct Truth {
  bool can_hold, can_fail;
};

VICINAL_HD bool always(Truth t) {
  return !t.can_fail;
}
VICINAL_HD bool never(Truth t) {
  return !t.can_hold;
}

VICINAL_HD Range point(int x) {
  return {x, x, 0};
}
VICINAL_HD RealRange point(float x) {
  return x == x ? RealRange{x, x, false} : RealRange{-kInfinity, kInfinity, true};
}
VICINAL_HD Truth point(bool x) {
  return {x, !x};
}
VICINAL_HD Range any_int() {
  return {static_cast<int>(kLowestInt), static_cast<int>(kHighestInt), 1};
}
VICINAL_HD RealRange any_real() {
  return {-kInfinity, kInfinity, true};
}
VICINAL_HD Truth any_truth() {
  return {true, true};
}

VICINAL_HD bool is_point(Range x) {
  return x.step == 0;
}
VICINAL_HD bool is_point(RealRange x) {
  return x.low == x.high && !x.nan;
}

VICINAL_HD u32 gcd(u32 a, u32 b) {
  if (a == 1 || b == 1) return 1;
  while (b != 0) {
    const u32 r = a % b;
    a = b;
    b = r;
  }
  return a;
}
VICINAL_HD u32 distance(int a, int b) {
  return static_cast<u32>(a < b ? static_cast<i64>(b) - a : static_cast<i64>(a) - b);
}

// From exact bounds: where they leave 32 bits, one element wraps to itself and several to anything.
VICINAL_HD Range make_range(i64 low, i64 high, u32 step) {
  if (low == high) return point(static_cast<int>(static_cast<u32>(static_cast<u64>(low))));
  if (low < kLowestInt || high > kHighestInt) return any_int();
  return {static_cast<int>(low), static_cast<int>(high), step};
}
VICINAL_HD Range join(Range x, Range y) {
  const u32 step = gcd(gcd(x.step, y.step), distance(x.low, y.low));
  return make_range(min(x.low, y.low), max(x.high, y.high), step);
}

// Integers.

VICINAL_HD Range add_i(Range x, Range y) {
  return make_range(static_cast<i64>(x.low) + y.low, static_cast<i64>(x.high) + y.high, gcd(x.step, y.step));
}
VICINAL_HD Range sub_i(Range x, Range y) {
  return make_range(static_cast<i64>(x.low) - y.high, static_cast<i64>(x.high) - y.low, gcd(x.step, y.step));
}
VICINAL_HD Range neg_i(Range x) {
  return make_range(-static_cast<i64>(x.high), -static_cast<i64>(x.low), x.step);
}
VICINAL_HD Range bitnot_i(Range x) {
  return make_range(-1 - static_cast<i64>(x.high), -1 - static_cast<i64>(x.low), x.step);
}

VICINAL_HD i64 lesser(i64 x, i64 y) {
  return y < x ? y : x;
}
VICINAL_HD i64 greater(i64 x, i64 y) {
  return x < y ? y : x;
}
// Rounds toward minus infinity; the divisor is not 0.
VICINAL_HD i64 floor_quotient(i64 x, i64 y) {
  return x / y - (x % y != 0 && (x < 0) != (y < 0) ? 1 : 0);
}

VICINAL_HD Range mul_i(Range x, Range y) {
  const i64 a = static_cast<i64>(x.low) * y.low, b = static_cast<i64>(x.low) * y.high,
            c = static_cast<i64>(x.high) * y.low, d = static_cast<i64>(x.high) * y.high;
  u32 step = 1;
  // Where the step leaves 32 bits the bounds do so too, and make_range() answers for it.
  if (is_point(y)) step = x.step * distance(y.low, 0);
  if (is_point(x)) step = y.step * distance(x.low, 0);
  return make_range(lesser(lesser(a, b), lesser(c, d)), greater(greater(a, b), greater(c, d)), step);
}

// By a positive divisor that may be 2^31.
VICINAL_HD Range divided(Range x, i64 divisor) {
  const i64 low = floor_quotient(x.low, divisor), high = floor_quotient(x.high, divisor);
  return make_range(low, high, x.step % divisor == 0 ? static_cast<u32>(x.step / divisor) : 1);
}

VICINAL_HD Range floordiv_i(Range x, Range y) {
  if (is_point(y) && y.low > 0) return divided(x, y.low);
  i64 low = kHighestInt, high = kLowestInt;
  const auto include = [&](i64 value) {
    low = lesser(low, value);
    high = greater(high, value);
  };
  if (y.low <= 0 && y.high >= 0) include(0);
  // The quotient is monotone in both operands while the divisor keeps its sign.
  const i64 ends[4] = {y.low, y.high, y.low < 0 && y.high >= 0 ? -1 : y.low,
                       y.low <= 0 && y.high > 0 ? 1 : y.high};
  for (const i64 divisor : ends) {
    if (divisor == 0) continue;
    include(floor_quotient(x.low, divisor));
    include(floor_quotient(x.high, divisor));
  }
  return make_range(low, high, 1);
}

// By a positive divisor that may be 2^31.
VICINAL_HD Range remainder(Range x, i64 divisor) {
  const i64 first = floor_quotient(x.low, divisor);
  if (first == floor_quotient(x.high, divisor))
    return {static_cast<int>(x.low - first * divisor), static_cast<int>(x.high - first * divisor), x.step};
  const i64 step = gcd(x.step, static_cast<u32>(divisor));
  const i64 low = x.low - floor_quotient(x.low, step) * step;
  return make_range(low, divisor - step + low, static_cast<u32>(step));
}

VICINAL_HD Range floormod_i(Range x, Range y) {
  if (is_point(y)) {
    if (y.low == 0) return point(0);
    if (y.low > 0) return remainder(x, y.low);
    // x % -n = -((-x) % n)
    const Range opposite = neg_i(x);
    if (!is_point(x) && opposite.low == kLowestInt) return make_range(static_cast<i64>(y.low) + 1, 0, 1);
    if (is_point(x)) return point(floormod(x.low, y.low));
    return neg_i(remainder(opposite, -static_cast<i64>(y.low)));
  }
  if (x.low >= 0 && y.low > 0) {
    if (x.high < y.low) return x;
    return make_range(0, lesser(x.high, static_cast<i64>(y.high) - 1), 1);
  }
  return make_range(lesser(0, static_cast<i64>(y.low) + 1), greater(0, static_cast<i64>(y.high) - 1), 1);
}

VICINAL_HD Range min_i(Range x, Range y) {
  if (x.high <= y.low) return x;
  if (y.high <= x.low) return y;
  const u32 step = gcd(gcd(x.step, y.step), distance(x.low, y.low));
  return make_range(min(x.low, y.low), min(x.high, y.high), step);
}
VICINAL_HD Range max_i(Range x, Range y) {
  if (x.high <= y.low) return y;
  if (y.high <= x.low) return x;
  const u32 step = gcd(gcd(x.step, y.step), distance(x.low, y.low));
  return make_range(max(x.low, y.low), max(x.high, y.high), step);
}
VICINAL_HD Range abs_i(Range x) {
  if (x.low >= 0) return x;
  if (x.high <= 0) return neg_i(x);
  if (x.low == kLowestInt) return any_int();
  // Of low + n step and its opposite one remainder is left when 2 low is a multiple.
  const u32 step = gcd(x.step, 2 * distance(x.low, 0));
  const i64 low = x.low - floor_quotient(x.low, step) * step;
  return make_range(low, greater(-static_cast<i64>(x.low), x.high), step);
}
VICINAL_HD Range sign_i(Range x) {
  return make_range(sign(x.low), sign(x.high), 1);
}

VICINAL_HD Range shl_i(Range x, Range n) {
  if (!is_point(n)) return any_int();
  if (n.low < 0 || n.low > 31) return point(0);
  const i64 factor = 1LL << n.low;
  // A point may lose bits; several elements then go anywhere, and a step of 2^32 with them.
  return make_range(x.low * factor, x.high * factor, static_cast<u32>(x.step * factor));
}
VICINAL_HD Range shr_i(Range x, Range n) {
  if (is_point(n) && n.low >= 0 && n.low <= 31) return divided(x, 1LL << n.low);
  // From a count of 31 on the sign is left.
  const bool beyond = n.low < 0 || n.high > 31;
  const int least = beyond && n.high < 0 ? 31 : max(min(n.low, 31), 0), most = beyond ? 31 : n.high;
  return make_range(lesser(x.low >> least, x.low >> most), greater(x.high >> least, x.high >> most), 1);
}

// The least 2^n - 1 that is not below x >= 0.
VICINAL_HD int ones(int x) {
  for (int shift = 1; shift < 32; shift *= 2) x |= x >> shift;
  return x;
}
VICINAL_HD Range bitand_i(Range x, Range y) {
  if (is_point(x) && is_point(y)) return point(x.low & y.low);
  for (int turn = 0; turn < 2; ++turn) {
    const Range mask = turn == 0 ? y : x, value = turn == 0 ? x : y;
    if (!is_point(mask) || mask.low <= 0) continue;
    // A field of neighbouring bits: shift it down, take the remainder, shift it back.
    const i64 unit = mask.low & -mask.low;
    const i64 width = (mask.low / unit) + 1;
    if ((width & (width - 1)) == 0)
      return mul_i(remainder(divided(value, unit), width), point(static_cast<int>(unit)));
  }
  if (x.low >= 0 && y.low >= 0) return make_range(0, min(x.high, y.high), 1);
  if (x.low >= 0) return make_range(0, x.high, 1);
  if (y.low >= 0) return make_range(0, y.high, 1);
  return any_int();
}
VICINAL_HD Range bitor_i(Range x, Range y) {
  if (is_point(x) && is_point(y)) return point(x.low | y.low);
  if (x.low < 0 || y.low < 0) return any_int();
  const i64 sum = static_cast<i64>(x.high) + y.high;
  return make_range(max(x.low, y.low), lesser(sum, ones(max(x.high, y.high))), 1);
}
VICINAL_HD Range bitxor_i(Range x, Range y) {
  if (is_point(x) && is_point(y)) return point(x.low ^ y.low);
  if (x.low < 0 || y.low < 0) return any_int();
  return make_range(0, ones(max(x.high, y.high)), 1);
}

VICINAL_HD Truth eq_i(Range x, Range y) {
  const u32 step = gcd(x.step, y.step), apart = distance(x.low, y.low);
  const bool meet = x.low <= y.high && y.low <= x.high && (step == 0 ? apart == 0 : apart % step == 0);
  return {meet, !(meet && is_point(x) && is_point(y))};
}
VICINAL_HD Truth not_b(Truth x) {
  return {x.can_fail, x.can_hold};
}
VICINAL_HD Truth ne_i(Range x, Range y) {
  return not_b(eq_i(x, y));
}
VICINAL_HD Truth lt_i(Range x, Range y) {
  return {x.low < y.high, x.high >= y.low};
}
VICINAL_HD Truth le_i(Range x, Range y) {
  return {x.low <= y.high, x.high > y.low};
}

// Floats, each operation rounded to fp32 and never contracted.

#if defined(__CUDA_ARCH__)
VICINAL_DEVICE float sum(float x, float y) {
  return __fadd_rn(x, y);
}
VICINAL_DEVICE float product(float x, float y) {
  return __fmul_rn(x, y);
}
VICINAL_DEVICE float quotient(float x, float y) {
  return __fdiv_rn(x, y);
}
VICINAL_DEVICE float square_root(float x) {
  return __fsqrt_rn(x);
}
VICINAL_DEVICE float rounded_down(float x) {
  return floorf(x);
}
VICINAL_DEVICE float rounded_up(float x) {
  return ceilf(x);
}
VICINAL_DEVICE float rounded(float x) {
  return rintf(x);
}
#else
VICINAL_HD float sum(float x, float y) {
  return x + y;
}
VICINAL_HD float product(float x, float y) {
  return x * y;
}
VICINAL_HD float quotient(float x, float y) {
  return x / y;
}
VICINAL_HD float square_root(float x) {
  return __builtin_sqrtf(x);
}
VICINAL_HD float rounded_down(float x) {
  return __builtin_floorf(x);
}
VICINAL_HD float rounded_up(float x) {
  return __builtin_ceilf(x);
}
VICINAL_HD float rounded(float x) {
  return __builtin_rintf(x);
}
#endif

VICINAL_HD bool infinite(float x) {
  return x - x != 0.0f;
}
VICINAL_HD bool infinite(RealRange x) {
  return infinite(x.low) || infinite(x.high);
}
VICINAL_HD bool holds_zero(RealRange x) {
  return x.low <= 0.0f && x.high >= 0.0f;
}
VICINAL_HD float lesser(float x, float y) {
  return y < x ? y : x;
}
VICINAL_HD float greater(float x, float y) {
  return x < y ? y : x;
}
// Both ends; an end that is NaN says nothing.
VICINAL_HD RealRange make_reals(float low, float high, bool nan) {
  return {low != low ? -kInfinity : low, high != high ? kInfinity : high, nan};
}
VICINAL_HD RealRange join(RealRange x, RealRange y) {
  return {lesser(x.low, y.low), greater(x.high, y.high), x.nan || y.nan};
}

VICINAL_HD RealRange neg_f(RealRange x) {
  return {-x.high, -x.low, x.nan};
}
VICINAL_HD RealRange add_f(RealRange x, RealRange y) {
  const bool nan = x.nan || y.nan || (infinite(x) && infinite(y));
  return make_reals(sum(x.low, y.low), sum(x.high, y.high), nan);
}
VICINAL_HD RealRange sub_f(RealRange x, RealRange y) {
  return add_f(x, neg_f(y));
}
// The corners of a product or a quotient. A corner that is NaN, as 0 * inf is, leaves its range unbounded.
VICINAL_HD RealRange corners(float a, float b, float c, float d, bool nan) {
  if (a != a || b != b || c != c || d != d) return any_real();
  return {lesser(lesser(a, b), lesser(c, d)), greater(greater(a, b), greater(c, d)), nan};
}
VICINAL_HD RealRange mul_f(RealRange x, RealRange y) {
  const bool nan = x.nan || y.nan || (infinite(x) && holds_zero(y)) || (infinite(y) && holds_zero(x));
  return corners(product(x.low, y.low), product(x.low, y.high), product(x.high, y.low),
                 product(x.high, y.high), nan);
}
VICINAL_HD RealRange div_f(RealRange x, RealRange y) {
  if (holds_zero(y)) return any_real();
  return corners(quotient(x.low, y.low), quotient(x.low, y.high), quotient(x.high, y.low),
                 quotient(x.high, y.high), x.nan || y.nan || (infinite(x) && infinite(y)));
}
VICINAL_HD RealRange floor_f(RealRange x) {
  return {rounded_down(x.low), rounded_down(x.high), x.nan};
}
VICINAL_HD RealRange ceil_f(RealRange x) {
  return {rounded_up(x.low), rounded_up(x.high), x.nan};
}
VICINAL_HD RealRange round_f(RealRange x) {
  return {rounded(x.low), rounded(x.high), x.nan};
}
VICINAL_HD RealRange floordiv_f(RealRange x, RealRange y) {
  return floor_f(div_f(x, y));
}
VICINAL_HD RealRange floormod_f(RealRange x, RealRange y) {
  return sub_f(x, mul_f(y, floordiv_f(x, y)));
}
// A number wins over NaN.
VICINAL_HD RealRange min_f(RealRange x, RealRange y) {
  float high = lesser(x.high, y.high);
  if (x.nan) high = greater(high, y.high);
  if (y.nan) high = greater(high, x.high);
  return {lesser(x.low, y.low), high, x.nan && y.nan};
}
VICINAL_HD RealRange max_f(RealRange x, RealRange y) {
  return neg_f(min_f(neg_f(x), neg_f(y)));
}
VICINAL_HD RealRange abs_f(RealRange x) {
  if (x.low >= 0.0f) return x;
  if (x.high <= 0.0f) return neg_f(x);
  return {0.0f, greater(-x.low, x.high), x.nan};
}
VICINAL_HD RealRange sign_f(RealRange x) {
  return {sign(x.low), sign(x.high), x.nan};
}
VICINAL_HD RealRange sqrt_f(RealRange x) {
  if (x.high < 0.0f) return any_real();
  return {square_root(greater(x.low, 0.0f)), square_root(x.high), x.nan || x.low < 0.0f};
}
VICINAL_HD Truth isnan_f(RealRange x) {
  return {x.nan, true};
}
VICINAL_HD Truth eq_f(RealRange x, RealRange y) {
  const bool meet = x.low <= y.high && y.low <= x.high;
  return {meet, !(meet && is_point(x) && is_point(y))};
}
VICINAL_HD Truth ne_f(RealRange x, RealRange y) {
  return not_b(eq_f(x, y));
}
VICINAL_HD Truth lt_f(RealRange x, RealRange y) {
  return {x.low < y.high, x.nan || y.nan || x.high >= y.low};
}
VICINAL_HD Truth le_f(RealRange x, RealRange y) {
  return {x.low <= y.high, x.nan || y.nan || x.high > y.low};
}

// Truth values, choice and conversion.

VICINAL_HD Truth and_b(Truth x, Truth y) {
  return {x.can_hold && y.can_hold, x.can_fail || y.can_fail};
}
VICINAL_HD Truth or_b(Truth x, Truth y) {
  return {x.can_hold || y.can_hold, x.can_fail && y.can_fail};
}
VICINAL_HD Truth join(Truth x, Truth y) {
  return {x.can_hold || y.can_hold, x.can_fail || y.can_fail};
}
VICINAL_HD Truth eq_b(Truth x, Truth y) {
  return {(x.can_hold && y.can_hold) || (x.can_fail && y.can_fail),
          (x.can_hold && y.can_fail) || (x.can_fail && y.can_hold)};
}
VICINAL_HD Truth ne_b(Truth x, Truth y) {
  return not_b(eq_b(x, y));
}

template <class T>
VICINAL_HD T chosen(Truth condition, T x, T y) {
  return always(condition) ? x : never(condition) ? y : join(x, y);
}
VICINAL_HD Range select_i(Truth condition, Range x, Range y) {
  return chosen(condition, x, y);
}
VICINAL_HD RealRange select_f(Truth condition, RealRange x, RealRange y) {
  return chosen(condition, x, y);
}
VICINAL_HD Truth select_b(Truth condition, Truth x, Truth y) {
  return chosen(condition, x, y);
}
VICINAL_HD RealRange float_i(Range x) {
  return {static_cast<float>(x.low), static_cast<float>(x.high), false};
}
VICINAL_HD Range int_f(RealRange x) {
  const Range numbers = make_range(to_int(x.low), to_int(x.high), 1);
  return x.nan ? join(numbers, point(0)) : numbers;
}
VICINAL_HD Range int_b(Truth x) {
  return make_range(x.can_fail ? 0 : 1, x.can_hold ? 1 : 0, 1);
}

}  // namespace vicinal::ranges
