#include "tests/support/kernel_gradients.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

namespace vicinal::testing {
namespace {

HostTensor like(const HostTensor& t, DType dtype) {
  HostTensor copy(dtype, t.shape());
  return copy.fill(7.0);
}

HostTensor rounded(const HostTensor& t, DType dtype) {
  HostTensor copy(dtype, t.shape());
  return copy.fill([&](const Index& i) { return t.at(i); });
}

double tolerance(DType dtype) {
  constexpr double kSums = 5e-5;  // fp32 sums of many terms, of which some cancel, and exp2 on its own unit
  return kSums + (dtype == DType::f32 ? 0 : dtype == DType::f16 ? 0x1p-8 : 0x1p-5);
}

// In units of the largest gradient of the tensor.
double largest_error(const HostTensor& got, const HostTensor& wanted) {
  double largest = 1e-3, error = 0;
  wanted.each([&](const Index& i) {
    largest = std::max(largest, std::fabs(wanted.at(i)));
    const double difference = std::fabs(got.at(i) - wanted.at(i));
    if (!(difference <= error)) error = difference;
  });
  return error / largest;
}

}  // namespace

KernelGradients::KernelGradients(const GradientCase& c, DType dtype)
    : q(like(c.q, dtype)), k(like(c.k, dtype)), v(like(c.v, dtype)), context(c.problem.shape.context >= 0) {
  if (context) context_k = like(c.context_k, dtype), context_v = like(c.context_v, dtype);
  for (const auto& [name, t] : c.inputs) inputs[name] = like(t, DType::f32);
  for (const auto& [name, t] : c.params) params[name] = like(t, DType::f32);
}

Differentials KernelGradients::wanted() const {
  Differentials d{.q = q.view(), .k = k.view(), .v = v.view()};
  if (context) d.context_k = context_k.view(), d.context_v = context_v.view();
  for (const auto& [name, t] : inputs) d.inputs[name] = t.view();
  for (const auto& [name, t] : params) d.params[name] = t.view();
  return d;
}

KernelGradients random_tangents(const GradientCase& c, DType dtype, std::mt19937& random) {
  KernelGradients tangents(c, dtype);
  for (HostTensor* t : {&tangents.q, &tangents.k, &tangents.v, &tangents.context_k, &tangents.context_v})
    if (!t->shape().empty()) t->fill_random(random);
  for (auto* captured : {&tangents.inputs, &tangents.params})
    for (auto& [name, t] : *captured) t.fill_random(random);
  return tangents;
}

void round_given(GradientCase& c, DType dtype) {
  c.d_out = rounded(c.d_out, dtype);
  if (!c.d_lse.shape().empty()) c.d_lse = rounded(c.d_lse, DType::f32);
}

void poison(Problem& problem, std::int64_t token) {
  for (const auto& [tensor, value] : {std::pair(&problem.k, NAN), std::pair(&problem.v, INFINITY)})
    tensor->each([&](const Index& i) {
      if (i[2] == token) tensor->set(i, value);
    });
}

void check_differential(const std::string& what, const HostTensor& got, const HostTensor& wanted,
                        DType dtype) {
  CAPTURE(what);
  CHECK(largest_error(got, wanted) <= tolerance(dtype));
}

void check_kernel_gradients(const KernelGradients& got, const GradientCase& c, DType dtype) {
  check_differential("q", got.q, c.q, dtype);
  check_differential("k", got.k, c.k, dtype);
  check_differential("v", got.v, c.v, dtype);
  if (got.context) {
    check_differential("context_k", got.context_k, c.context_k, dtype);
    check_differential("context_v", got.context_v, c.context_v, dtype);
  }
  for (const auto& [name, x] : c.inputs) check_differential(name, got.inputs.at(name), x, dtype);
  for (const auto& [name, x] : c.params) check_differential(name, got.params.at(name), x, dtype);
}

}  // namespace vicinal::testing
