#include "tests/support/kernel_gradients.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "runtime/cpu/backward.h"
#include "runtime/host/parallel.h"
#include "runtime/kernel_impl.h"
#include "tests/support/accuracy_check.h"

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

double largest(const HostTensor& t) {
  double x = 0;
  t.each([&](const Index& i) { x = std::max(x, std::fabs(t.at(i))); });
  return x;
}

double largest_error(const HostTensor& got, const HostTensor& wanted) {
  double error = 0;
  wanted.each([&](const Index& i) {
    const double difference = std::fabs(got.at(i) - wanted.at(i));
    error = std::max(error, std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference);
  });
  return error;
}

// Of a tensor whose largest gradient is `largest`.
double tolerated(double largest, DType dtype) {
  return tolerance(dtype) * std::max(1e-3, largest);
}

// Of every tensor, as visit(name, in `x`, in `wanted`).
template <class Visit>
void each_gradient(const KernelGradients& x, const GradientCase& wanted, Visit visit) {
  visit("q", x.q, wanted.q);
  visit("k", x.k, wanted.k);
  visit("v", x.v, wanted.v);
  if (x.context) {
    visit("context_k", x.context_k, wanted.context_k);
    visit("context_v", x.context_v, wanted.context_v);
  }
  for (const auto& [name, t] : wanted.inputs) visit(name, x.inputs.at(name), t);
  for (const auto& [name, t] : wanted.params) visit(name, x.params.at(name), t);
}

KernelGradients plain_gradients(const Kernel& host, const GradientCase& c, DType dtype) {
  KernelGradients plain(c, dtype);
  RunArguments arguments = c.problem.arguments();
  arguments.lse.reset();
  const runtime::Problem bound = host.impl().bind(arguments).value();
  const ir::Module& module = host.impl().differentiated();
  cpu::plain_backward(module, bound,
                      runtime::bind_output_differentials(module, bound, c.given(), "gradient", true).value(),
                      runtime::bind_differentials(module, bound, plain.wanted(), "gradient").value(),
                      host::default_threads());
  return plain;
}

// The same problem with other channels and incoming gradients; captured tensors, on which masks may depend,
// stay. Nothing where a kink came too near: the plain program may be on its other side.
std::optional<GradientCase> redrawn(const Kernel& host, const GradientCase& c, DType dtype,
                                    std::mt19937& random) {
  GradientCase other = c;
  Problem& p = other.problem;
  for (HostTensor* t : {&p.q, &p.k, &p.v, &p.context_k, &p.context_v, &other.d_out, &other.d_lse})
    if (!t->shape().empty()) t->fill_random(random);
  if (!keeps_from_kinks(host, p, 1e-3)) return std::nullopt;
  round_given(other, dtype);
  host.backward(p.arguments(), other.given(), other.wanted()).value();
  return other;
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
  CHECK(largest_error(got, wanted) <= tolerated(largest(wanted), dtype));
}

void check_kernel_gradients(const Kernel& host, std::initializer_list<const KernelGradients*> all,
                            const GradientCase& c, DType dtype) {
  struct Of {
    Errors errors;
    double error = 0;       // the largest
    double largest = 0;     // gradient
    double comparable = 0;  // the largest gradient, of other draws too
    bool within(DType type) const { return error <= tolerated(comparable, type); }
  };
  std::map<std::string, Of> found;
  for (const KernelGradients* got : all)
    each_gradient(*got, c, [&](const std::string& name, const HostTensor& x, const HostTensor& wanted) {
      Of& of = found[name];
      of.error = std::max(of.error, largest_error(x, wanted));
      of.largest = of.comparable = largest(wanted);
      wanted.each([&](const Index& i) { of.errors.add(x.at(i), wanted.at(i), wanted.at(i), x.dtype()); });
    });
  const auto add_plain = [&](const GradientCase& from) {
    each_gradient(plain_gradients(host, from, dtype), from,
                  [&](const std::string& name, const HostTensor& x, const HostTensor& wanted) {
                    Of& of = found[name];
                    // One number may be small because its terms cancel.
                    const double drawn = largest(wanted);
                    const double scale = std::max(1.0, of.largest / std::max(drawn, 1e-30));
                    of.comparable = std::max(of.comparable, drawn);
                    wanted.each([&](const Index& i) {
                      of.errors.plain = std::max(of.errors.plain, scale * std::fabs(x.at(i) - wanted.at(i)));
                    });
                  });
  };
  add_plain(c);
  // Of many rows none has luck, and the interpreter takes its time.
  constexpr std::size_t kFewNumbers = 1 << 17;
  const int draws = c.d_out.bytes().size() / sizeof(double) <= kFewNumbers ? 16 : 0;
  std::mt19937 random(71);
  const auto passes = [&](const auto& named) {
    return named.second.errors.pass() && named.second.within(dtype);
  };
  for (int draw = 0; draw < draws && !std::ranges::all_of(found, passes); ++draw)
    if (const auto other = redrawn(host, c, dtype, random)) add_plain(*other);
  for (const auto& [name, of] : found) {
    CHECK_MESSAGE(of.within(dtype), fmt::format("the gradient of {} is off by {:.3g}, tolerated {:.3g}", name,
                                                of.error, tolerated(of.comparable, dtype)));
    CHECK_MESSAGE(of.errors.pass(), fmt::format("the gradient of {} is off by {:.3g}, allowed {:.3g}", name,
                                                of.errors.error, of.errors.allowed()));
  }
}

}  // namespace vicinal::testing
