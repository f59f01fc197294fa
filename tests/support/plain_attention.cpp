#include "tests/support/plain_attention.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace vicinal::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::int64_t product(const Index& extents) {
  std::int64_t n = 1;
  for (std::int64_t e : extents) n *= e;
  return n;
}

// Calls visit(index) for every token of a grid, in the flattened order.
void each_token(const Index& extents, const std::function<void(const Index&)>& visit) {
  HostTensor(DType::i8, extents).each(visit);
}

Index plus(Index a, const Index& b) {
  for (std::size_t i = 0; i < b.size(); ++i) a[i] += b[i];
  return a;
}

std::int64_t flatten(const Index& at, const Index& extents) {
  std::int64_t n = 0;
  for (std::size_t i = 0; i < at.size(); ++i) n = n * extents[i] + at[i];
  return n;
}

Index element(std::int64_t b, std::int64_t h, const Index& token, std::int64_t c) {
  Index index = {b, h};
  index.insert(index.end(), token.begin(), token.end());
  if (c >= 0) index.push_back(c);
  return index;
}

struct Kept {
  double score;
  const HostTensor* values;
  Index token;
};

class Loops {
 public:
  Loops(const PlainSpec& spec, const Problem& problem) : spec_(spec), p_(problem), s_(problem.shape) {
    grid_ = s_.grid.empty() ? s_.queries : s_.grid;
    key_grid_ = !s_.key_grid.empty()                         ? s_.key_grid
                : !spec.axes.empty() || !s_.k_origin.empty() ? grid_
                                                             : s_.keys;
    for (std::size_t i = 0; i < spec.axes.size(); ++i) {
      PlainAxis axis = spec.axes[i];
      axis.length = grid_[i];
      seen_.emplace_back();
      for (std::int64_t x = 0; x < axis.length; ++x) seen_.back().push_back(seen_by(axis, x));
    }
  }

  PlainResult run() {
    for (std::int64_t b = 0; b < s_.batch; ++b)
      for (std::int64_t h = 0; h < s_.heads; ++h)
        each_token(s_.queries, [&](const Index& token) { row(b, h, token); });
    return std::move(result_);
  }

 private:
  bool neighbors(const PlainPair& pair) const {
    for (std::size_t i = 0; i < seen_.size(); ++i) {
      const auto& list = seen_[i][static_cast<std::size_t>(pair.q_at[i])];
      if (!std::binary_search(list.begin(), list.end(), pair.k_at[i])) return false;
    }
    return true;
  }

  void visit(PlainPair& pair, const Index& q_token, const HostTensor& keys, const HostTensor& values,
             const Index& token, std::vector<Kept>& kept) const {
    if (spec_.mask && !spec_.mask(pair)) return;
    double dot = 0, qq = 0, kk = 0;
    for (std::int64_t c = 0; c < s_.head_dim; ++c) {
      const double x = p_.q.at(element(pair.b, pair.h, q_token, c)),
                   y = keys.at(element(pair.b, pair.kv_h, token, c));
      dot += x * y;
      qq += x * x;
      kk += y * y;
    }
    if (spec_.query_l2norm) dot /= std::max(std::sqrt(qq), 1e-12);
    if (spec_.key_l2norm) dot /= std::max(std::sqrt(kk), 1e-12);
    double s =
        dot * (spec_.scale ? spec_.scale(pair.b, pair.h) : 1 / std::sqrt(static_cast<double>(s_.head_dim)));
    if (spec_.score) s = spec_.score(pair, s);
    if (s != -kInfinity) kept.push_back({s, &values, token});
  }

  void row(std::int64_t b, std::int64_t h, const Index& q_token) {
    PlainPair pair;
    pair.b = b;
    pair.h = h;
    pair.kv_h = h / (s_.heads / s_.kv_heads);
    pair.q_at = plus(q_token, s_.q_origin);
    pair.q_index = flatten(pair.q_at, grid_);
    pair.q = pair.q_index + (spec_.align_end ? product(key_grid_) - product(grid_) : 0);
    std::vector<Kept> kept;
    each_token(s_.keys, [&](const Index& token) {
      pair.k_at = plus(token, s_.k_origin);
      pair.k = flatten(pair.k_at, key_grid_);
      if (neighbors(pair)) visit(pair, q_token, p_.k, p_.v, token, kept);
    });
    pair.context = true;
    pair.k_at.clear();
    for (pair.k = 0; pair.k < s_.context; ++pair.k)
      visit(pair, q_token, p_.context_k, p_.context_v, {pair.k}, kept);
    finish(pair, kept);
  }

  void finish(const PlainPair& pair, const std::vector<Kept>& kept) {
    const bool softmax = spec_.normalize == PlainSpec::Normalize::softmax;
    double lse = 0;
    if (softmax) {
      // The largest term first, so that exp() stays finite.
      const double sink = spec_.sink ? spec_.sink(pair.b, pair.h) : -kInfinity;
      double top = sink;
      for (const Kept& k : kept)
        if (k.score > top) top = k.score;
      if (top == -kInfinity) top = 0;
      double sum = std::exp(sink - top);
      for (const Kept& k : kept) sum += std::exp(k.score - top);
      lse = std::log(sum) + top;
      result_.lse.push_back(lse);
    }
    for (std::int64_t c = 0; c < s_.value_dim; ++c) {
      double out = 0, magnitude = 0;
      for (const Kept& k : kept) {
        const double weight = softmax ? std::exp(k.score - lse)
                              : spec_.normalize == PlainSpec::Normalize::sigmoid
                                  ? 1 / (1 + std::exp(-k.score))
                                  : k.score;
        const double term = weight * k.values->at(element(pair.b, pair.kv_h, k.token, c));
        out += term;
        magnitude += std::fabs(term);
      }
      if (spec_.output) out = spec_.output(pair, out, lse), magnitude += std::fabs(out);
      result_.out.push_back(out);
      result_.magnitude.push_back(magnitude);
    }
  }

  const PlainSpec& spec_;
  const Problem& p_;
  const ProblemShape& s_;
  Index grid_, key_grid_;
  std::vector<std::vector<std::vector<std::int64_t>>> seen_;  // by axis and coordinate
  PlainResult result_;
};

// The strides of [batch, heads, tokens..., dim] (or without dim) in a layout.
Index strides_for(Layout layout, const Index& shape) {
  const std::size_t rank = shape.size();
  std::vector<std::size_t> order(rank);  // fastest last
  for (std::size_t i = 0; i < rank; ++i) order[i] = i;
  if (layout == Layout::bnhd) std::rotate(order.begin() + 1, order.begin() + 2, order.end() - 1);
  Index strides(rank);
  std::int64_t step = layout == Layout::padded ? 2 : 1;
  for (std::size_t i = rank; i-- > 0;) {
    strides[order[i]] = layout == Layout::reversed && i > 1 ? -step : step;
    step = step * std::max<std::int64_t>(shape[order[i]], 1) + (layout == Layout::padded ? 3 : 0);
  }
  return strides;
}

}  // namespace

// By listing the dilation group and walking it: no formula shared with geometry.cuh.
std::vector<std::int64_t> seen_by(const PlainAxis& axis, std::int64_t x) {
  std::vector<std::int64_t> group;
  std::int64_t p = 0;
  for (std::int64_t y = 0; y < axis.length; ++y) {
    if (y % axis.dilation != x % axis.dilation) continue;
    if (y == x) p = static_cast<std::int64_t>(group.size());
    group.push_back(y);
  }
  const auto n = static_cast<std::int64_t>(group.size());
  const std::int64_t window = axis.window == 0 ? n : axis.window;
  // The queries that share p's window, and their leader.
  std::int64_t first = p;
  while (first % axis.stride != 0) --first;
  const std::int64_t leader =
      std::min(axis.causal ? first + axis.stride - 1 : first + axis.stride / 2, n - 1);
  std::vector<std::int64_t> seen;
  if (axis.causal) {
    for (std::int64_t r = 0; r <= p; ++r)
      if (leader - r < window) seen.push_back(group[static_cast<std::size_t>(r)]);
    return seen;
  }
  std::int64_t start = leader - window / 2;
  while (start + window > n) --start;
  while (start < 0) ++start;
  for (std::int64_t r = start; r < start + window; ++r) seen.push_back(group[static_cast<std::size_t>(r)]);
  return seen;
}

RunArguments Problem::arguments() const {
  RunArguments a;
  a.q = q.view(), a.k = k.view(), a.v = v.view(), a.out = out.view();
  if (shape.lse) a.lse = lse.view();
  if (shape.context >= 0) a.context_k = context_k.view(), a.context_v = context_v.view();
  for (const auto& [name, tensor] : inputs) a.inputs[name] = tensor.view();
  a.dynamic = dynamic;
  a.grid = shape.grid, a.key_grid = shape.key_grid, a.q_origin = shape.q_origin, a.k_origin = shape.k_origin;
  return a;
}

HostTensor make_tensor(const ProblemShape& s, std::int64_t heads, const Index& tokens, std::int64_t dim) {
  const Index shape = element(s.batch, heads, tokens, dim);
  return HostTensor(s.dtype, shape, strides_for(s.layout, shape));
}

HostTensor documents(std::int64_t tokens, std::int64_t length) {
  HostTensor document(DType::i32, {tokens});
  document.each([&](const Index& i) { document.set(i, static_cast<double>(i[0] / length)); });
  return document;
}

Problem make_problem(const ProblemShape& s, unsigned seed) {
  Problem p;
  p.shape = s;
  p.q = make_tensor(s, s.heads, s.queries, s.head_dim);
  p.k = make_tensor(s, s.kv_heads, s.keys, s.head_dim);
  p.v = make_tensor(s, s.kv_heads, s.keys, s.value_dim);
  p.out = make_tensor(s, s.heads, s.queries, s.value_dim);
  p.lse = HostTensor(DType::f32, element(s.batch, s.heads, s.queries, -1));
  std::mt19937 random(seed);
  for (HostTensor* t : {&p.q, &p.k, &p.v}) t->fill_random(random, -1.5, 1.5);
  if (s.context < 0) return p;
  p.context_k = make_tensor(s, s.kv_heads, {s.context}, s.head_dim).fill_random(random, -1.5, 1.5);
  p.context_v = make_tensor(s, s.kv_heads, {s.context}, s.value_dim).fill_random(random, -1.5, 1.5);
  return p;
}

PlainResult plain_attention(const PlainSpec& spec, const Problem& problem) {
  return Loops(spec, problem).run();
}

Kernel compile_for_interpreter(const std::string& text, const ProblemShape& shape, CompileOptions options) {
  options.backend = Backend::interpreter;
  options.dtype = shape.dtype;
  options.head_dim = shape.head_dim;
  options.value_dim = shape.value_dim;
  return compile(Spec::from_string(text).value(), options).value();
}

void interpret(const std::string& text, const Problem& problem, CompileOptions options) {
  compile_for_interpreter(text, problem.shape, std::move(options)).run(problem.arguments()).value();
}

void check_close(const Problem& problem, const PlainResult& wanted) {
  int wrong = 0;
  std::size_t i = 0;
  const auto compare = [&](const HostTensor& tensor, const Index& index, double want, double magnitude) {
    const double got = tensor.at(index), room = ulp(tensor.dtype(), want) + 1e-12 * magnitude;
    const bool close = std::isnan(want)   ? std::isnan(got)
                       : std::isinf(want) ? got == want
                                          : std::fabs(got - want) <= room;
    if (close || ++wrong > 1) return;
    FAIL_CHECK((tensor.shape().size() == problem.lse.shape().size() ? "lse" : "out"), " element ", i,
               ": got ", got, ", want ", want, " within ", room);
  };
  problem.out.each(
      [&](const Index& index) { compare(problem.out, index, wanted.out[i], wanted.magnitude[i]), ++i; });
  CHECK(i == wanted.out.size());
  i = 0;
  if (problem.shape.lse && !wanted.lse.empty())
    problem.lse.each([&](const Index& index) { compare(problem.lse, index, wanted.lse[i], 0), ++i; });
  CHECK(wrong == 0);
}

void check_against_plain(const std::string& text, const PlainSpec& meaning, const Problem& problem,
                         const CompileOptions& options) {
  CAPTURE(text);
  interpret(text, problem, options);
  check_close(problem, plain_attention(meaning, problem));
}

}  // namespace vicinal::testing
