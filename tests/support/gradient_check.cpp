#include "tests/support/gradient_check.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "compiler/passes/differentiate.h"
#include "runtime/cpu/differentiated.h"
#include "runtime/kernel_impl.h"
#include "tests/support/random_problem.h"

namespace vicinal::testing {
namespace {

using ir::NodeId;
using ir::Op;

// What a problem must keep from kinks, in the units of what is compared there.
constexpr double kMargin = 1e-3;
// A singularity has to be farther away than a kink: differences are off by the square of step / distance.
constexpr double kSingular = 1.0 / 30;

double from_integer(double x) {
  return std::fabs(x - std::nearbyint(x));
}

// How far an operation is from where it has no derivative.
double distance(Op op, const ir::Value* x) {
  switch (op) {
    case Op::min_f:
    case Op::max_f:
    case Op::lt_f:
    case Op::le_f:
    case Op::eq_f:
    case Op::ne_f: return std::fabs(x[0].f - x[1].f);
    case Op::abs_f:
    case Op::sign_f: return std::fabs(x[0].f);
    case Op::floor_f:
    case Op::ceil_f:
    case Op::int_f: return from_integer(x[0].f);
    case Op::round_f: return from_integer(x[0].f + 0.5);
    case Op::floordiv_f:
    case Op::floormod_f: return std::min(from_integer(x[0].f / x[1].f), std::fabs(x[1].f) * kSingular);
    case Op::div_f: return std::fabs(x[1].f) * kSingular;
    case Op::sqrt_f:
    case Op::rsqrt_f:
    case Op::log_f:
    case Op::log2_f:
    case Op::pow_f: return x[0].f * kSingular;
    case Op::tan_f: return std::fabs(std::cos(x[0].f)) * kSingular;
    default: return INFINITY;
  }
}

// Of one root, at the places where it is evaluated.
class KinkFinder {
 public:
  KinkFinder(const ir::Module& module, const runtime::Problem& problem, ir::Root root)
      : module_(module),
        root_(module.root(root)),
        expression_(module, problem, root_, cpu::Arithmetic::wide) {
    active_.resize(module.size());
    const std::vector<std::uint8_t> varies = ir::variance(module);
    for (std::uint32_t n = 0; n < module.size(); ++n) {
      const ir::Node& node = module.nodes()[n];
      bool active = (varies[n] & (ir::kScore | ir::kOutput)) != 0;
      if (const auto* s = std::get_if<ir::Symbol>(&node.what);
          s != nullptr && s->kind == ir::SymbolKind::param)
        active = module.params[s->index].learnable;
      if (const auto* l = std::get_if<ir::Load>(&node.what)) active = module.inputs[l->input].learnable;
      if (std::holds_alternative<ir::Dot>(node.what)) active = true;
      for (const NodeId id : node.operands) active = active || active_[id.value];
      active_[n] = active;
    }
    if (!root_.valid()) return;
    reached_.resize(module.size());
    reached_[root_.value] = true;
    for (std::size_t n = module.size(); n-- > 0;)
      if (reached_[n])
        for (const NodeId id : module.nodes()[n].operands) reached_[id.value] = true;
  }

  double at(const cpu::Place& place) {
    if (!root_.valid()) return INFINITY;
    cpu::Expression::Scratch values;
    expression_.start_row(place, values);
    expression_.evaluate(place, values);
    double nearest = std::isfinite(values[root_.value].f) ? INFINITY : 0;
    for (std::size_t n = 0; n < reached_.size(); ++n) {
      const ir::Node& node = module_.nodes()[n];
      const auto* apply = std::get_if<ir::Apply>(&node.what);
      if (!reached_[n] || apply == nullptr) continue;
      bool active = false;
      ir::Value operands[ir::kMaxArity] = {};
      for (std::size_t i = 0; i < node.operands.size(); ++i) {
        operands[i] = values[node.operands[i].value];
        active = active || active_[node.operands[i].value];
      }
      if (!active) continue;
      const double d = distance(apply->op, operands);
      nearest = std::isnan(d) ? 0 : std::min(nearest, d);
    }
    return nearest;
  }

 private:
  const ir::Module& module_;
  const NodeId root_;
  const cpu::Expression expression_;
  std::vector<bool> active_, reached_;
};

HostTensor zeros(const Index& shape) {
  return HostTensor(DType::f64, shape);
}

std::int64_t rows_of(const Problem& p) {
  std::int64_t n = p.shape.batch * p.shape.heads;
  for (const std::int64_t e : p.shape.queries) n *= e;
  return n;
}

// Central differences of all rows' losses, by what `set` makes of a step.
std::vector<double> differences(const Kernel& kernel, const GradientCase& c, double step,
                                const std::function<void(double)>& set) {
  set(step);
  const std::vector<double> above = row_losses(kernel, c);
  set(-step);
  const std::vector<double> below = row_losses(kernel, c);
  set(0);
  std::vector<double> result(above.size());
  for (std::size_t i = 0; i < above.size(); ++i) result[i] = (above[i] - below[i]) / (2 * step);
  return result;
}

double sum(const std::vector<double>& x) {
  double total = 0;
  for (const double v : x) total += v;
  return total;
}

// Pairs of a gradient and its finite difference, of one tensor.
class Comparison {
 public:
  Comparison(GradientErrors& errors, std::string name) : errors_(errors), name_(std::move(name)) {}
  ~Comparison() {
    // Where nothing depends on the tensor, differences are what rounding makes of them.
    const double scale = std::max(largest_, 1e-3);
    if (std::isnan(largest_error_) || largest_error_ / scale > errors_.worst) {
      errors_.worst = largest_error_ / scale;
      errors_.where = fmt::format("{}: {} of {}", name_, where_, largest_);
    }
  }
  void add(double gradient, double difference) {
    ++errors_.compared;
    largest_ = std::max(largest_, std::fabs(gradient));
    const double error = std::fabs(gradient - difference);
    if (!(error <= largest_error_))
      largest_error_ = error, where_ = fmt::format("{} and not {}", gradient, difference);
  }

 private:
  GradientErrors& errors_;
  std::string name_, where_;
  double largest_ = 0, largest_error_ = 0;
};

constexpr double kStep = 1e-5;

// Rows are independent of each other, so one channel of all queries moves at a time.
void compare_queries(const Kernel& kernel, GradientCase& c, GradientErrors& errors) {
  Comparison comparison(errors, "q");
  HostTensor& q = c.problem.q;
  const HostTensor before = q;
  for (std::int64_t channel = 0; channel < q.shape().back(); ++channel) {
    const std::vector<double> d = differences(kernel, c, kStep, [&](double step) {
      q.each([&](const Index& i) {
        if (i.back() == channel) q.set(i, before.at(i) + step);
      });
    });
    std::size_t row = 0;
    c.q.each([&](const Index& i) {
      if (i.back() == channel) comparison.add(c.q.at(i), d[row++]);
    });
  }
}

// Batches and key heads are too: one element of each moves at a time.
void compare_keys(const Kernel& kernel, GradientCase& c, const std::string& name, HostTensor& x,
                  const HostTensor& gradient, std::int64_t most, GradientErrors& errors) {
  if (x.shape().size() < 3 || x.bytes().empty()) return;
  Comparison comparison(errors, name);
  std::vector<Index> elements;  // of the first batch and head
  x.each([&](const Index& i) {
    if (i[0] == 0 && i[1] == 0) elements.push_back(i);
  });
  const HostTensor before = x;
  const std::int64_t batches = x.shape()[0], heads = x.shape()[1];
  const std::int64_t group = c.problem.shape.heads / heads;
  const std::int64_t rows = rows_of(c.problem) / c.problem.shape.batch / c.problem.shape.heads;
  const std::size_t stride = 1 + elements.size() / static_cast<std::size_t>(most);
  for (std::size_t n = 0; n < elements.size(); n += stride) {
    const auto each_group = [&](const auto& visit) {
      for (Index i = elements[n]; i[0] < batches; ++i[0])
        for (i[1] = 0; i[1] < heads; ++i[1]) visit(i);
    };
    const std::vector<double> d = differences(kernel, c, kStep, [&](double step) {
      each_group([&](const Index& i) { x.set(i, before.at(i) + step); });
    });
    each_group([&](const Index& i) {
      double total = 0;
      const std::int64_t first = (i[0] * heads + i[1]) * group * rows;
      for (std::int64_t r = first; r < first + group * rows; ++r) total += d[static_cast<std::size_t>(r)];
      comparison.add(gradient.at(i), total);
    });
  }
}

void compare_input(const Kernel& kernel, GradientCase& c, const std::string& name, const HostTensor& gradient,
                   std::int64_t most, GradientErrors& errors) {
  Comparison comparison(errors, name);
  HostTensor& x = c.problem.inputs.at(name);
  std::vector<Index> elements;
  x.each([&](const Index& i) { elements.push_back(i); });
  const std::size_t stride = 1 + elements.size() / static_cast<std::size_t>(most);
  for (std::size_t n = 0; n < elements.size(); n += stride) {
    const Index& i = elements[n];
    const double before = x.at(i);
    comparison.add(gradient.at(i),
                   sum(differences(kernel, c, kStep, [&](double step) { x.set(i, before + step); })));
  }
}

// Params are fp32: steps that it holds, and a formula of higher order since these are longer.
constexpr double kParamStep = 0x1p-14;

void compare_param(const Kernel& kernel, GradientCase& c, const std::string& name, double gradient,
                   GradientErrors& errors) {
  Comparison comparison(errors, name);
  const double before = std::get<double>(c.problem.dynamic.at(name));
  const auto set = [&](double step) { c.problem.dynamic[name] = before + step; };
  const double once = sum(differences(kernel, c, kParamStep, set)),
               twice = sum(differences(kernel, c, 2 * kParamStep, set));
  comparison.add(gradient, (4 * once - twice) / 3);
}

}  // namespace

OutputDifferentials GradientCase::given() const {
  OutputDifferentials result{.out = d_out.view(), .lse = std::nullopt};
  if (!d_lse.shape().empty()) result.lse = d_lse.view();
  return result;
}

Differentials GradientCase::wanted() const {
  Differentials result{.q = q.view(), .k = k.view(), .v = v.view()};
  if (problem.shape.context >= 0) result.context_k = context_k.view(), result.context_v = context_v.view();
  for (const auto& [name, tensor] : inputs) result.inputs[name] = tensor.view();
  for (const auto& [name, tensor] : params) result.params[name] = tensor.view();
  return result;
}

Result<Kernel> compile_for_gradients(const Spec& spec, CompileOptions options) {
  options.backend = Backend::interpreter;
  options.dtype = DType::f64;
  if (options.head_dim == 128) options.head_dim = 8;
  for (const ir::Input& input : spec.impl().variant.checked.module.inputs)
    if (input.type == ir::Type::real) options.input_dtypes[input.name] = DType::f64;
  return compile(spec, options);
}

GradientCase gradient_case(const Kernel& kernel, Problem problem, std::mt19937& random) {
  const ir::Module& module = kernel.impl().variant.checked.module;
  GradientCase c;
  c.problem = std::move(problem);
  const Problem& p = c.problem;
  c.d_out = zeros(p.out.shape()).fill_random(random);
  if (module.normalize == ir::Normalize::softmax) {
    Index rows = p.out.shape();
    rows.pop_back();
    c.d_lse = zeros(rows).fill_random(random);
  }
  c.q = zeros(p.q.shape()), c.k = zeros(p.k.shape()), c.v = zeros(p.v.shape());
  c.context_k = zeros(p.context_k.shape()), c.context_v = zeros(p.context_v.shape());
  for (const ir::Input& input : module.inputs)
    if (input.learnable && p.inputs.contains(input.name))
      c.inputs[input.name] = zeros(p.inputs.at(input.name).shape());
  for (const ir::Param& param : module.params) {
    if (!param.learnable) continue;
    c.params[param.name] = zeros({});
    const double value = param.value.f + std::uniform_real_distribution<double>(-0.25, 0.25)(random);
    c.problem.dynamic[param.name] = std::nearbyint(value / kParamStep) * kParamStep;
  }
  return c;
}

std::optional<GradientCase> gradient_case(const Kernel& kernel, std::mt19937& random, std::int64_t tokens,
                                          int attempts) {
  for (int i = 0; i < attempts; ++i) {
    std::optional<Problem> problem = random_problem(kernel, random, {.tokens = tokens});
    if (!problem) return std::nullopt;
    GradientCase c = gradient_case(kernel, *std::move(problem), random);
    if (keeps_from_kinks(kernel, c.problem, kMargin)) return c;
  }
  return std::nullopt;
}

bool keeps_from_kinks(const Kernel& kernel, const Problem& problem, double margin) {
  const ir::Module& module = kernel.impl().variant.checked.module;
  const runtime::Problem bound = kernel.impl().bind(problem.arguments()).value();
  const cpu::Differentiated of(module, bound);
  KinkFinder score(module, bound, ir::Root::score), scale(module, bound, ir::Root::scale),
      sink(module, bound, ir::Root::sink), output(module, bound, ir::Root::output);
  double nearest = INFINITY;
  const std::int64_t queries = bound.local_queries();
  std::vector<std::int64_t> coordinate;
  for (std::int64_t n = 0; n < bound.rows() && nearest >= margin; ++n) {
    const cpu::RowTrace trace =
        of.interpreter.trace({n / queries / bound.heads, n / queries % bound.heads, n % queries});
    cpu::Place place = trace.place;
    nearest = std::min({nearest, scale.at(place), trace.sink == 0 ? INFINITY : sink.at(place)});
    for (const double out : trace.out) {
      place.out = out;
      nearest = std::min(nearest, output.at(place));
    }
    for (const cpu::RowTrace::Pair& pair : trace.pairs) {
      of.go_to(pair, place, coordinate);
      place.score = trace.scale * pair.dot;
      nearest = std::min(nearest, score.at(place));
    }
  }
  return nearest >= margin;
}

std::vector<double> row_losses(const Kernel& kernel, const GradientCase& c) {
  const runtime::Problem bound = kernel.impl().bind(c.problem.arguments()).value();
  const cpu::Interpreter interpreter(kernel.impl().variant.checked.module, bound);
  const auto* d_out = reinterpret_cast<const double*>(c.d_out.bytes().data());
  const auto* d_lse = reinterpret_cast<const double*>(c.d_lse.bytes().data());
  const std::int64_t queries = bound.local_queries();
  std::vector<double> losses;
  for (std::int64_t n = 0; n < bound.rows(); ++n) {
    const cpu::RowResult row =
        interpreter.row({n / queries / bound.heads, n / queries % bound.heads, n % queries});
    double loss = 0;
    for (const double x : row.out) loss += x * *d_out++;
    // A row that keeps nothing has an LSE of -inf, whatever moves.
    if (!c.d_lse.shape().empty() && std::isfinite(row.lse)) loss += row.lse * d_lse[n];
    losses.push_back(loss);
  }
  return losses;
}

GradientErrors compare_gradients(const Kernel& kernel, GradientCase& c, std::int64_t most) {
  kernel.backward(c.problem.arguments(), c.given(), c.wanted()).value();
  GradientErrors errors;
  compare_queries(kernel, c, errors);
  compare_keys(kernel, c, "k", c.problem.k, c.k, most, errors);
  compare_keys(kernel, c, "v", c.problem.v, c.v, most, errors);
  if (c.problem.shape.context > 0) {
    compare_keys(kernel, c, "context_k", c.problem.context_k, c.context_k, most, errors);
    compare_keys(kernel, c, "context_v", c.problem.context_v, c.context_v, most, errors);
  }
  for (const auto& [name, gradient] : c.inputs) compare_input(kernel, c, name, gradient, most, errors);
  for (const auto& [name, gradient] : c.params) compare_param(kernel, c, name, gradient.at({}), errors);
  return errors;
}

}  // namespace vicinal::testing
