// Generated elementary functions against long double, over all floats: every exponent and sign, evenly spaced
// fractions, what stands next to powers of two, and the special values.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "runtime/engine.h"
#include "tests/support/host_tensor.h"

namespace vicinal {
namespace {

std::vector<float> samples() {
  std::vector<float> x;
  for (std::uint32_t exponent = 0; exponent < 256; ++exponent)
    for (const std::uint32_t sign : {0u, 1u}) {
      const std::uint32_t base = sign << 31 | exponent << 23;
      for (std::uint32_t fraction = 0; fraction < 1u << 23; fraction += 4001)
        x.push_back(std::bit_cast<float>(base | fraction));
      for (const std::uint32_t fraction : {1u, 2u, (1u << 23) - 1, (1u << 23) - 2, 0x3504f3u, 0x3504f2u})
        x.push_back(std::bit_cast<float>(base | fraction));
    }
  // Where results overflow, vanish or change their formula.
  for (const float edge :
       {128.0f, -126.0f, -149.0f, -150.0f, 88.72284f, -103.97208f, 0.55f, 9.010913f, 0.5f, 1.0f})
    for (int step = -300; step <= 300; ++step)
      x.push_back(std::bit_cast<float>(std::bit_cast<std::int32_t>(edge) + step));
  return x;
}

struct Case {
  ir::Op op;
  long double (*exact)(long double);
  double bound;  // in ulp of the rounded result
};
constexpr Case kCases[] = {
    {ir::Op::exp2_f, [](long double x) { return std::exp2(x); }, 2},
    {ir::Op::exp_f, [](long double x) { return std::exp(x); }, 2},
    {ir::Op::log2_f, [](long double x) { return std::log2(x); }, 3},
    {ir::Op::log_f, [](long double x) { return std::log(x); }, 3},
    {ir::Op::tanh_f, [](long double x) { return std::tanh(x); }, 4},
    {ir::Op::sigmoid_f, [](long double x) { return 1 / (1 + std::exp(-x)); }, 4},
};

}  // namespace

TEST_CASE("generated elementary functions keep their bounds") {
  const Result<runtime::Engine*> engine = runtime::Engine::process();
  REQUIRE(engine.has_value());
  const Result<const cpu::CodeGeneratorApi*> generator = (*engine)->code_generator();
  if (!generator) {
    MESSAGE("skipped: ", generator.error().message);
    return;
  }
  const std::vector<float> x = samples();
  std::vector<float> y(x.size());
  std::string table;
  for (const Case& c : kCases) {
    CAPTURE(std::string(ir::info(c.op).name));
    std::string error;
    REQUIRE_MESSAGE((*generator)->evaluate(c.op, x.data(), y.data(), x.size(), error), error);
    double worst = 0;
    float at = 0;
    int wrong = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const long double exact = c.exact(x[i]);
      const auto rounded = static_cast<float>(exact);
      if (std::isnan(rounded) || std::isinf(rounded) || std::isinf(y[i]) || std::isnan(y[i])) {
        // A result next to the largest float may round to infinity.
        const bool overflow = std::isinf(y[i]) && std::fabs(rounded) > 0x1.fffff0p127f;
        wrong += !(overflow || (std::isnan(rounded) ? std::isnan(y[i]) : y[i] == rounded));
        continue;
      }
      const double off = static_cast<double>(std::fabs(static_cast<long double>(y[i]) - exact)) /
                         testing::ulp(DType::f32, static_cast<double>(rounded));
      if (off > worst) worst = off, at = x[i];
    }
    CHECK(wrong == 0);
    CHECK_MESSAGE(worst <= c.bound, fmt::format("off by {:.2f} ulp at {:a}", worst, at));
    table += fmt::format("\n{:12} {:5.2f} ulp at {}", ir::info(c.op).name, worst, at);
  }
  MESSAGE(x.size(), " floats each:", table);
}

}  // namespace vicinal
