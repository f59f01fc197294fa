// The set arithmetic, operation by operation: random sets, random elements of them, and the operation on
// those, as the table of operations evaluates it, must lie in the set that comes out.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <type_traits>

#include "compiler/ir/ops.h"
#include "templates/vicinal/ranges.cuh"

namespace vicinal {
namespace {

using ranges::Range;
using ranges::RealRange;
using ranges::Truth;

class Sets {
 public:
  explicit Sets(unsigned seed) : random_(seed) {}

  std::int64_t below(std::int64_t n) {
    return static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(n));
  }

  // Small ones mostly; sometimes at the ends of the type, sometimes one number.
  void make(Range& r) {
    const std::int64_t anchors[] = {0,      0, 0, 7, -9, 64, ranges::kLowestInt, ranges::kHighestInt - 40,
                                    1 << 20};
    const std::int64_t low =
        std::clamp<std::int64_t>(anchors[below(9)] + below(41) - 20, ranges::kLowestInt, ranges::kHighestInt);
    const std::int64_t step = below(3) == 0 ? 1 + below(12) : 1;
    const std::int64_t count = below(3) == 0 ? 1 : below(12) == 0 ? 1 + below(1 << 30) : 1 + below(20);
    const std::int64_t high =
        low + (std::min<std::int64_t>(count - 1, (ranges::kHighestInt - low) / step)) * step;
    r = ranges::make_range(low, high, static_cast<std::uint32_t>(step));
  }
  void make(RealRange& r) {
    float a = number(), b = below(3) == 0 ? a : number();
    if (b < a) std::swap(a, b);
    r = {a, b, below(8) == 0};
  }
  void make(Truth& t) {
    const std::int64_t which = below(3);
    t = {which != 0, which != 1};
  }

  ir::Value element(const Range& r) {
    if (r.step == 0) return ir::int_value(r.low);
    const std::int64_t count = (static_cast<std::int64_t>(r.high) - r.low) / r.step + 1;
    const std::int64_t at = below(4) == 0 ? 0 : below(4) == 0 ? count - 1 : below(count);
    return ir::int_value(static_cast<int>(r.low + at * r.step));
  }
  ir::Value element(const RealRange& r) {
    if (r.nan && below(4) == 0) return ir::real_value(std::numeric_limits<double>::quiet_NaN());
    const std::int64_t which = below(4);
    float x = which == 0   ? r.low
              : which == 1 ? r.high
                           : r.low + (r.high - r.low) * static_cast<float>(below(1000)) / 1000;
    if (!(x >= r.low && x <= r.high)) x = r.low;
    return ir::real_value(static_cast<double>(x));
  }
  ir::Value element(const Truth& t) {
    return ir::bool_value(!t.can_hold ? false : !t.can_fail || below(2) == 0);
  }

 private:
  float number() {
    const float special[] = {0.0f,   -0.0f, 1.0f,   -1.0f,    0.5f,      2.5f,
                             1e-40f, 3e38f, -3e38f, INFINITY, -INFINITY, 16777216.0f};
    if (below(3) == 0) return special[below(12)];
    if (below(6) == 0) {
      const float any = std::bit_cast<float>(static_cast<std::uint32_t>(random_()));
      if (any == any) return any;
    }
    return static_cast<float>(below(4001) - 2000) / 16.0f;
  }

  std::mt19937_64 random_;
};

bool holds(const Range& set, ir::Value v) {
  if (v.i < set.low || v.i > set.high) return false;
  return set.step == 0 || (static_cast<std::int64_t>(v.i) - set.low) % set.step == 0;
}
bool holds(const RealRange& set, ir::Value v) {
  const auto x = static_cast<float>(v.f);
  return x == x ? x >= set.low && x <= set.high : set.nan;
}
bool holds(const Truth& set, ir::Value v) {
  return v.b ? set.can_hold : set.can_fail;
}
bool well_formed(const Range& r) {
  return r.low <= r.high && (r.step == 0) == (r.low == r.high) &&
         (r.step == 0 || (static_cast<std::int64_t>(r.high) - r.low) % r.step == 0);
}
bool well_formed(const RealRange& r) {
  return r.low <= r.high;
}
bool well_formed(const Truth& t) {
  return t.can_hold || t.can_fail;
}
bool point(const Range& r) {
  return ranges::is_point(r);
}
bool point(const RealRange& r) {
  return ranges::is_point(r);
}
bool point(const Truth& t) {
  return t.can_hold != t.can_fail;
}
// A quotient by either zero is infinite, and the set does not tell zeros apart.
bool exact_on_points(ir::Op op) {
  return op != ir::Op::div_f && op != ir::Op::floordiv_f && op != ir::Op::floormod_f && op != ir::Op::isnan_f;
}

template <class R, class... A>
void check_rule(ir::Op op, R (*rule)(A...), Sets& sets) {
  const ir::OpInfo& info = ir::info(op);
  CAPTURE(std::string(info.name));
  for (int round = 0; round < 4000; ++round) {
    std::tuple<A...> operands;
    std::apply([&](A&... a) { (sets.make(a), ...); }, operands);
    const R result = std::apply(rule, operands);
    REQUIRE(well_formed(result));
    bool points = true;
    std::apply([&](A&... a) { ((points = points && point(a)), ...); }, operands);
    for (int sample = 0; sample < 6; ++sample) {
      ir::Value values[ir::kMaxArity];
      std::size_t n = 0;
      std::apply([&](A&... a) { ((values[n++] = sets.element(a)), ...); }, operands);
      const ir::Value value = info.exact(values);
      REQUIRE(holds(result, value));
      const bool number = info.result != ir::Type::real || std::isfinite(value.f);
      if (points && number && exact_on_points(op)) REQUIRE(point(result));
    }
  }
}

}  // namespace

TEST_CASE("ranges: every operation of the table is bounded by its rule") {
  Sets sets(7);
  int rules = 0;
#define VICINAL_RULE_(id)                   \
  check_rule(ir::Op::id, ranges::id, sets); \
  ++rules;
#define VICINAL_RULE_C(id) VICINAL_RULE_(id)
#define VICINAL_RULE_T(id)
#define VICINAL_OP(id, name, text, traits, ...) VICINAL_RULE_##traits(id)
#include "compiler/ir/ops.def"
  CHECK(rules > 45);
}

TEST_CASE("ranges: what tiles rely on is kept") {
  const auto range = [](int low, int high, u32 step = 1) { return ranges::make_range(low, high, step); };
  const auto same = [](Range a, Range b) { return a.low == b.low && a.high == b.high && a.step == b.step; };
  // A dilation's residue survives, and so does a tile inside one period.
  CHECK(same(ranges::floormod_i(range(3, 99, 4), ranges::point(4)), ranges::point(3)));
  CHECK(same(ranges::floormod_i(range(130, 140), ranges::point(64)), range(2, 12)));
  CHECK(same(ranges::floormod_i(range(3, 99, 6), ranges::point(4)), range(1, 3, 2)));
  CHECK(same(ranges::floordiv_i(range(128, 255), ranges::point(128)), ranges::point(1)));
  CHECK(same(ranges::floordiv_i(range(-1, 8, 3), ranges::point(3)), range(-1, 2)));
  CHECK(same(ranges::bitand_i(range(64, 127), ranges::point(63)), range(0, 63)));
  CHECK(same(ranges::bitand_i(range(64, 127), ranges::point(0x40)), ranges::point(0x40)));
  CHECK(same(ranges::bitor_i(range(64, 64), range(0, 7)), range(64, 71)));
  CHECK(same(ranges::abs_i(range(-6, 10, 4)), range(2, 10, 4)));
  CHECK(same(ranges::mul_i(range(0, 5), ranges::point(-3)), range(-15, 0, 3)));
  CHECK(ranges::never(ranges::eq_i(range(0, 100, 4), range(2, 50, 2 * 4))));
  CHECK(ranges::never(ranges::lt_i(range(5, 9), range(0, 5))));
  CHECK(ranges::always(ranges::le_i(range(0, 5), range(5, 9))));
}

}  // namespace vicinal
