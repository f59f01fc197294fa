#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "runtime/files/half.h"

using namespace vicinal::files;

namespace {

bool is_nan_f16(unsigned h) {
  return (h & 0x7c00u) == 0x7c00u && (h & 0x3ffu) != 0;
}
bool is_nan_bf16(unsigned h) {
  return (h & 0x7f80u) == 0x7f80u && (h & 0x7fu) != 0;
}

// The value of a binary16 pattern by its definition.
double f16_by_definition(unsigned h) {
  const double sign = (h & 0x8000u) != 0 ? -1 : 1;
  const int exponent = static_cast<int>(h >> 10 & 31u);
  const double fraction = h & 0x3ffu;
  if (exponent == 31) return sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

TEST_CASE("half: every f16 pattern has its value and comes back") {
  int wrong = 0;
  for (unsigned h = 0; h < 65536; ++h) {
    const float value = float_from_f16(static_cast<std::uint16_t>(h));
    const unsigned back = f16_from_float(value);
    if (is_nan_f16(h)) {
      wrong += !std::isnan(value) || back != (h | 0x200u);
    } else {
      wrong += static_cast<double>(value) != f16_by_definition(h) || back != h;
      wrong += std::signbit(value) != ((h & 0x8000u) != 0);
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("half: between two f16 values the nearer one is taken, and the even one of a tie") {
  int wrong = 0;
  for (unsigned h = 0; h < 0x7bff; ++h) {
    const float below = float_from_f16(static_cast<std::uint16_t>(h));
    const float above = float_from_f16(static_cast<std::uint16_t>(h + 1));
    const float middle = (below + above) / 2;
    wrong += f16_from_float(middle) != ((h & 1u) == 0 ? h : h + 1);
    wrong += f16_from_float(std::nextafter(middle, -kInfinity)) != h;
    wrong += f16_from_float(std::nextafter(middle, kInfinity)) != h + 1;
    wrong += f16_from_float(-middle) != (0x8000u | ((h & 1u) == 0 ? h : h + 1));
  }
  CHECK(wrong == 0);
}

TEST_CASE("half: f16 at its ends") {
  CHECK(f16_from_float(65504.0f) == 0x7bff);
  CHECK(f16_from_float(std::nextafter(65520.0f, 0.0f)) == 0x7bff);
  CHECK(f16_from_float(65520.0f) == 0x7c00);
  CHECK(f16_from_float(std::numeric_limits<float>::max()) == 0x7c00);
  CHECK(f16_from_float(-kInfinity) == 0xfc00);
  CHECK(f16_from_float(0x1p-25f) == 0);
  CHECK(f16_from_float(std::nextafter(0x1p-25f, 1.0f)) == 1);
  CHECK(f16_from_float(std::numeric_limits<float>::denorm_min()) == 0);
  CHECK(f16_from_float(-0.0f) == 0x8000);
  CHECK(is_nan_f16(
      f16_from_float(std::bit_cast<float>(0x7f800001u))));  // a NaN whose payload is all in the low bits
}

TEST_CASE("half: every bf16 pattern comes back, and halves round to even") {
  int wrong = 0;
  for (unsigned h = 0; h < 65536; ++h) {
    const float value = float_from_bf16(static_cast<std::uint16_t>(h));
    const unsigned back = bf16_from_float(value);
    if (is_nan_bf16(h)) {
      wrong += !std::isnan(value) || back != (h | 0x40u);
      continue;
    }
    wrong += back != h;
    if ((h & 0x7fffu) >= 0x7f80u) continue;
    // h, and half a step and its neighbours beyond it
    const std::uint32_t tie = h << 16 | 0x8000u;
    wrong += bf16_from_float(std::bit_cast<float>(tie)) != ((h & 1u) == 0 ? h : h + 1);
    wrong += bf16_from_float(std::bit_cast<float>(tie - 1)) != h;
    wrong += bf16_from_float(std::bit_cast<float>(tie + 1)) != h + 1;
  }
  CHECK(wrong == 0);
  CHECK(bf16_from_float(std::numeric_limits<float>::max()) == 0x7f80);
  CHECK(bf16_from_float(0.0f) == 0);
  CHECK(bf16_from_float(-0.0f) == 0x8000);
  CHECK(is_nan_bf16(bf16_from_float(std::bit_cast<float>(0x7f800001u))));
}

static_assert(f16_from_float(1.0f) == 0x3c00 && float_from_f16(0x3c00) == 1.0f);
static_assert(bf16_from_float(1.0f) == 0x3f80 && float_from_bf16(0x3f80) == 1.0f);
