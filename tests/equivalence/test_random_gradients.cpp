// Random differentiable specs: the interpreter's gradients against finite differences.
#include <doctest/doctest.h>

#include <chrono>
#include <cstdlib>

#include "tests/support/gradient_check.h"
#include "tests/support/random_spec.h"
#include "tests/support/sanitized.h"

namespace vicinal::testing {

TEST_CASE("random specs: gradients agree with finite differences") {
  const char* given = std::getenv("VICINAL_RANDOM_SPECS");
  const unsigned count =
      given == nullptr ? (kSanitized ? 100u : 600u) : static_cast<unsigned>(std::strtoul(given, nullptr, 10));
  unsigned compared = 0;
  std::int64_t elements = 0, captured = 0;
  double worst = 0;
  for (unsigned seed = 1; seed <= count; ++seed) {
    CAPTURE(seed);
    const std::string text = random_spec(seed, true).text;
    CAPTURE(text);
    const Result<Kernel> kernel = compile_for_gradients(Spec::from_string(text).value());
    REQUIRE_MESSAGE(kernel.has_value(), (kernel ? "" : kernel.error().message));
    std::mt19937 random(seed);
    std::optional<GradientCase> c = gradient_case(*kernel, random, 5, 6);
    if (!c) continue;
    const GradientErrors errors = compare_gradients(*kernel, *c, 6);
    CHECK_MESSAGE(errors.worst <= kGradientTolerance, errors.where);
    ++compared;
    elements += errors.compared;
    captured += static_cast<std::int64_t>(c->inputs.size() + c->params.size());
    worst = std::max(worst, errors.worst);
  }
  MESSAGE(compared, " of ", count, " specs, ", elements, " elements, ", captured,
          " learnable inputs and params; largest relative error ", worst);
  CHECK(compared * 2 > count);
  CHECK(captured * 4 > compared);
}

}  // namespace vicinal::testing
