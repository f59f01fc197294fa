// Forward mode: against finite differences along a direction, and as the adjoint of reverse mode.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>

#include "runtime/kernel_impl.h"
#include "tests/support/gallery.h"
#include "tests/support/gradient_check.h"
#include "tests/support/random_spec.h"

namespace vicinal::testing {
namespace {

// A direction for everything that gradients are taken of, and where tangents arrive.
struct Direction {
  GradientCase tangents;  // in its gradients' places
  HostTensor out, lse;
};

Direction random_direction(const GradientCase& c, std::mt19937& random) {
  Direction d{c, c.d_out, c.d_lse};
  GradientCase& t = d.tangents;
  for (HostTensor* x : {&t.q, &t.k, &t.v, &t.context_k, &t.context_v}) x->fill_random(random);
  for (auto& [name, x] : t.inputs) x.fill_random(random);
  for (auto& [name, x] : t.params) x.fill_random(random);
  return d;
}

void push(const Kernel& kernel, const GradientCase& c, Direction& d) {
  OutputDifferentials wanted{.out = d.out.view(), .lse = std::nullopt};
  if (!c.d_lse.shape().empty()) wanted.lse = d.lse.view();
  kernel.jvp(c.problem.arguments(), d.tangents.wanted(), wanted).value();
}

double inner(const HostTensor& x, const HostTensor& y, double& magnitude) {
  double sum = 0;
  x.each([&](const Index& i) {
    const double term = x.at(i) * y.at(i);
    sum += term, magnitude += std::fabs(term);
  });
  return sum;
}

struct Identity {
  double forward, backward, magnitude;
};
// <dO, J v> and <J^T dO, v>.
Identity adjoint_identity(const Kernel& kernel, GradientCase& c, std::mt19937& random) {
  Direction d = random_direction(c, random);
  push(kernel, c, d);
  kernel.backward(c.problem.arguments(), c.given(), c.wanted()).value();
  Identity result{0, 0, 0};
  result.forward = inner(c.d_out, d.out, result.magnitude);
  if (!c.d_lse.shape().empty()) result.forward += inner(c.d_lse, d.lse, result.magnitude);
  const GradientCase& t = d.tangents;
  for (const auto& [x, y] : {std::pair(&c.q, &t.q),
                             {&c.k, &t.k},
                             {&c.v, &t.v},
                             {&c.context_k, &t.context_k},
                             {&c.context_v, &t.context_v}})
    if (!x->shape().empty()) result.backward += inner(*x, *y, result.magnitude);
  for (const auto& [name, x] : c.inputs) result.backward += inner(x, t.inputs.at(name), result.magnitude);
  for (const auto& [name, x] : c.params) result.backward += inner(x, t.params.at(name), result.magnitude);
  return result;
}

}  // namespace

TEST_CASE("forward mode agrees with finite differences along a direction") {
  unsigned seed = 0;
  for (const GalleryBlock& block : learnable_gallery()) {
    CAPTURE(block.name);
    const Kernel kernel = compile_for_gradients(block.spec).value();
    std::mt19937 random(++seed);
    std::optional<GradientCase> c = gradient_case(kernel, random, 7, 50);
    REQUIRE(c.has_value());
    Direction d = random_direction(*c, random);
    // Params are fp32: they stay where they are.
    for (auto& [name, x] : d.tangents.params) x.fill(0.0);
    push(kernel, *c, d);
    const auto losses = [&](double step) {
      GradientCase moved = *c;
      const auto move = [&](HostTensor& x, const HostTensor& by) {
        x.each([&](const Index& i) { x.set(i, x.at(i) + step * by.at(i)); });
      };
      move(moved.problem.q, d.tangents.q), move(moved.problem.k, d.tangents.k);
      move(moved.problem.v, d.tangents.v);
      if (moved.problem.shape.context > 0)
        move(moved.problem.context_k, d.tangents.context_k),
            move(moved.problem.context_v, d.tangents.context_v);
      for (auto& [name, x] : d.tangents.inputs) move(moved.problem.inputs.at(name), x);
      return row_losses(kernel, moved);
    };
    constexpr double step = 1e-5;
    const std::vector<double> above = losses(step), below = losses(-step);
    // A row's tangent, weighed as its loss is.
    std::vector<double> rows;
    const std::int64_t dims = d.out.shape().back();
    std::int64_t n = 0;
    double largest = 0;
    d.out.each([&](const Index& i) {
      if (n++ % dims == 0) rows.push_back(0);
      rows.back() += c->d_out.at(i) * d.out.at(i);
    });
    std::size_t row = 0;
    if (!c->d_lse.shape().empty())
      d.lse.each([&](const Index& i) { rows[row++] += c->d_lse.at(i) * d.lse.at(i); });
    for (const double x : rows) largest = std::max(largest, std::fabs(x));
    for (std::size_t r = 0; r < rows.size(); ++r)
      CHECK(std::fabs(rows[r] - (above[r] - below[r]) / (2 * step)) <=
            kGradientTolerance * std::max(largest, 1e-3));
  }
}

TEST_CASE("forward and reverse mode are adjoint on random specs") {
  int compared = 0;
  for (unsigned seed = 1; seed <= 400; ++seed) {
    CAPTURE(seed);
    const std::string text = random_spec(seed, true).text;
    CAPTURE(text);
    const Spec spec = Spec::from_string(text).value();
    const Result<Kernel> kernel = compile_for_gradients(spec);
    REQUIRE(kernel.has_value());
    std::mt19937 random(seed);
    std::optional<GradientCase> c = gradient_case(*kernel, random, 9, 1);
    if (!c) continue;
    const Identity identity = adjoint_identity(*kernel, *c, random);
    if (!std::isfinite(identity.magnitude)) continue;
    ++compared;
    CHECK(std::fabs(identity.forward - identity.backward) <= 1e-12 * (1 + identity.magnitude));
  }
  MESSAGE(compared, " specs compared");
  CHECK(compared >= 150);
}

}  // namespace vicinal::testing
