#include "tests/support/accuracy_check.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>

#include "runtime/cpu/interpreter.h"
#include "runtime/host/parallel.h"
#include "runtime/kernel_impl.h"
#include "tests/support/random_problem.h"

namespace vicinal::testing {
namespace {

double error_of(double got, double want) {
  if (got == want || (std::isnan(got) && std::isnan(want))) return 0;
  const double error = std::fabs(got - want);
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

Index element_of(const Index& token, std::int64_t b, std::int64_t h) {
  Index index = {b, h};
  index.insert(index.end(), token.begin(), token.end());
  return index;
}

// What the device left in the problem against the interpreter.
std::pair<Errors, Errors> compare(const Kernel& host, const Problem& problem) {
  const runtime::Problem bound = host.impl().bind(problem.arguments()).value();
  const cpu::Interpreter oracle(host.impl().variant.checked.module, bound);
  std::vector<Index> tokens;
  HostTensor(DType::i8, problem.shape.queries).each([&](const Index& token) { tokens.push_back(token); });
  Errors out, lse;
  std::mutex mutex;
  host::parallel_for(bound.rows(), host::default_threads(), [&](std::int64_t n) {
    const auto queries = static_cast<std::int64_t>(tokens.size());
    const cpu::Row row{n / queries / bound.heads, n / queries % bound.heads, n % queries};
    const cpu::RowResult exact = oracle.row(row), plain = oracle.plain_row(row);
    Index at = element_of(tokens[static_cast<std::size_t>(row.token)], row.batch, row.head);
    const std::scoped_lock lock(mutex);
    if (problem.shape.lse) lse.add(problem.lse.at(at), exact.lse, plain.lse, DType::f32);
    at.push_back(0);
    for (std::size_t c = 0; c < exact.out.size(); ++c) {
      at.back() = static_cast<std::int64_t>(c);
      out.add(problem.out.at(at), exact.out[c], plain.out[c], problem.out.dtype());
    }
  });
  return {out, lse};
}

// The weights of a row's keys, those of the context last.
struct KeyWeights {
  std::vector<double> of;
  std::int64_t not_finite = 0;

  // Of values that are one-hot in the key, and 0 in all others.
  double output(std::int64_t key) const {
    const double weight =
        key < static_cast<std::int64_t>(of.size()) ? of[static_cast<std::size_t>(key)] : 0.0;
    return not_finite > (std::isfinite(weight) ? 0 : 1) ? std::numeric_limits<double>::quiet_NaN() : weight;
  }
};

// Of all rows, in the order of the output's. `keys`: of the grid.
std::vector<KeyWeights> key_weights(const Kernel& host, const Problem& problem, std::int64_t keys) {
  const runtime::Problem bound = host.impl().bind(problem.arguments()).value();
  const cpu::Interpreter oracle(host.impl().variant.checked.module, bound);
  std::vector<KeyWeights> rows(static_cast<std::size_t>(bound.rows()));
  host::parallel_for(bound.rows(), host::default_threads(), [&](std::int64_t n) {
    const std::int64_t queries = bound.local_queries();
    const cpu::RowTrace trace =
        oracle.trace({n / queries / bound.heads, n / queries % bound.heads, n % queries});
    KeyWeights& row = rows[static_cast<std::size_t>(n)];
    row.of.resize(static_cast<std::size_t>(keys + std::max<std::int64_t>(problem.shape.context, 0)));
    for (const cpu::RowTrace::Pair& p : trace.pairs) {
      row.of[static_cast<std::size_t>(p.context ? keys + p.key : p.key)] = p.weight;
      row.not_finite += !std::isfinite(p.weight);
    }
  });
  return rows;
}

}  // namespace

void Errors::add(double got, double want, double by_plain, DType dtype) {
  plain = std::max(plain, error_of(by_plain, want));
  const double off = error_of(got, want), room = 2 * ulp(dtype, want);
  if (off - room > excess) error = off, two_ulp = room, excess = off - room;
}

void ErrorTable::add(const std::string& spec, const std::string& kernel, DType dtype, const Errors& out,
                     const Errors& lse) {
  std::string line = fmt::format("{:44} {:9} {:4} {:10.2e} {:10.2e} {:10.2e} {:10.2e}\n", spec, kernel,
                                 name_of(dtype), out.error, out.allowed(), lse.error, lse.allowed());
  const std::scoped_lock lock(mutex_);
  lines_.insert(std::move(line));
}

std::string ErrorTable::text() const {
  std::string text = fmt::format("{:44} {:9} {:4} {:>10} {:>10} {:>10} {:>10}\n", "spec", "kernel", "type",
                                 "max error", "allowed", "lse error", "allowed");
  for (const std::string& line : lines_) text += line;
  return text;
}

ProblemShape shape_of(const Job& job, std::int64_t queries, std::int64_t keys, Layout layout) {
  ProblemShape shape;
  shape.heads = 2;
  shape.kv_heads = 1;
  shape.head_dim = job.options.head_dim;
  shape.value_dim = job.options.value_dim;
  shape.queries = {queries};
  shape.keys = {keys};
  shape.dtype = job.options.dtype;
  shape.layout = layout;
  if (job.spec.has_context()) shape.context = 70;
  return shape;
}

MoreProblems more_of(const Kernel& host, std::mt19937& random, std::int64_t tokens) {
  return [&host, &random, tokens] { return random_problem(host, random, {.tokens = tokens}); };
}

void compile_all(std::vector<Job>& jobs) {
  host::parallel_for(static_cast<std::int64_t>(jobs.size()), host::default_threads(), [&](std::int64_t n) {
    Job& job = jobs[static_cast<std::size_t>(n)];
    std::mt19937 random(static_cast<unsigned>(n));
    if (job.options.input_dtypes.empty()) job.options.input_dtypes = random_input_dtypes(job.spec, random);
    CompileOptions on_host = job.options;
    on_host.backend = Backend::interpreter;
    Result<Kernel> tested = compile(job.spec, job.options), host = compile(job.spec, on_host);
    if (tested && host)
      job.tested = *std::move(tested), job.host = *std::move(host);
    else
      job.error = (tested ? host : tested).error().message;
  });
}

Accuracy check_values(const Kernel& host, const RunProblem& run, Problem problem,
                      const MoreProblems& others) {
  const Result<void> done = run(problem);
  REQUIRE_MESSAGE(done.has_value(), (done ? "" : done.error().message));
  auto [out, lse] = compare(host, problem);
  for (int n = 0; others && n < 3 && !(out.pass() && lse.pass()); ++n) {
    const std::optional<Problem> other = others();
    if (!other) continue;
    const auto [other_out, other_lse] = compare(host, *other);
    out.plain = std::max(out.plain, other_out.plain);
    lse.plain = std::max(lse.plain, other_lse.plain);
  }
  CHECK_MESSAGE(out.pass(), fmt::format("out is off by {:.3g}, allowed {:.3g}", out.error, out.allowed()));
  CHECK_MESSAGE(lse.pass(), fmt::format("lse is off by {:.3g}, allowed {:.3g}", lse.error, lse.allowed()));
  return {out, lse};
}

void poison(Problem& problem, std::mt19937& random) {
  for (int n = 0; n < 2; ++n) {
    HostTensor& tensor = n == 0 ? problem.k : problem.v;
    if (tensor.bytes().empty()) continue;
    Index at;
    for (std::int64_t extent : tensor.shape())
      at.push_back(static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(extent)));
    tensor.set(at, std::numeric_limits<double>::quiet_NaN());
  }
}

void check_mask(const Kernel& host, const RunProblem& run, Problem problem) {
  const ir::Module& module = host.impl().variant.checked.module;
  if (module.normalize == ir::Normalize::none || module.root(ir::Root::output).valid()) return;
  problem.q.fill(0.0), problem.k.fill(0.0);
  std::int64_t keys = 1;
  for (std::int64_t extent : problem.shape.keys) keys *= extent;
  const std::int64_t context_keys = std::max<std::int64_t>(problem.shape.context, 0);
  if (context_keys != 0) problem.context_k.fill(0.0);
  const std::int64_t dim = problem.shape.value_dim;
  problem.v.fill(0.0);
  if (context_keys != 0) problem.context_v.fill(0.0);
  const std::vector<KeyWeights> rows = key_weights(host, problem, keys);
  int wrong = 0;
  for (std::int64_t first = 0; first < keys + context_keys; first += dim) {
    std::int64_t j = 0;
    problem.v.fill([&](const Index& at) { return j++ / dim % keys - first == at.back() ? 1.0 : 0.0; });
    if (context_keys != 0)
      problem.context_v.fill([&](const Index& at) { return keys + at[2] - first == at.back() ? 1.0 : 0.0; });
    const Result<void> done = run(problem);
    REQUIRE_MESSAGE(done.has_value(), (done ? "" : done.error().message));
    std::size_t row = 0;
    problem.out.each([&](const Index& at) {
      const double expected = rows[row].output(first + at.back()), got = problem.out.at(at);
      const bool right = expected == 0 ? got == 0
                                       : !(std::fabs(expected) > 1e-20) || (got != 0 && !std::isnan(got)) ||
                                             (std::isnan(expected) && std::isnan(got));
      wrong += !right;
      row += at.back() == dim - 1;
    });
  }
  CHECK(wrong == 0);
}

}  // namespace vicinal::testing
