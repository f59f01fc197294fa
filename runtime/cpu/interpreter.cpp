#include "runtime/cpu/interpreter.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/cpu/expression.h"
#include "runtime/cpu/places.h"
#include "runtime/host/elements.h"
#include "runtime/host/parallel.h"
#include "templates/vicinal/geometry.cuh"

namespace vicinal::cpu {
namespace {

using ir::Root;
using runtime::Problem;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

template <class Real>
Real weight_of(ir::Normalize normalize, Real score, Real lse) {
  return normalize == ir::Normalize::softmax   ? std::exp(score - lse)
         : normalize == ir::Normalize::sigmoid ? 1 / (1 + std::exp(-score))
                                               : score;
}

}  // namespace

struct Interpreter::Impl {
  const ir::Module& module;
  const Problem& problem;
  Expression score, mask, scale, sink, output;
  Expression plain_score, plain_scale, plain_sink, plain_output;  // in fp32

  Impl(const ir::Module& m, const Problem& p)
      : module(m),
        problem(p),
        score(m, p, m.root(Root::score), Arithmetic::wide),
        mask(m, p, m.root(Root::mask), Arithmetic::exact),
        scale(m, p, m.root(Root::scale), Arithmetic::wide),
        sink(m, p, m.root(Root::sink), Arithmetic::wide),
        output(m, p, m.root(Root::output), Arithmetic::wide),
        plain_score(m, p, m.root(Root::score), Arithmetic::plain),
        plain_scale(m, p, m.root(Root::scale), Arithmetic::plain),
        plain_sink(m, p, m.root(Root::sink), Arithmetic::plain),
        plain_output(m, p, m.root(Root::output), Arithmetic::plain) {}

  static void channels(const runtime::Strided& t, std::int64_t at, std::vector<double>& to) {
    host::load_elements(t.data, t.dtype, at, t.dim, static_cast<std::int64_t>(to.size()), to.data());
  }

  // All that is fixed along one row.
  struct RowState {
    Place place;
    std::vector<std::int64_t> local, coordinate, key_coordinate;
    std::vector<KeyRange> ranges;  // of the neighborhood, per axis
    Expression::Scratch score_values, mask_values;
    bool plain = false;               // fp32 instead of double
    bool last_channel_first = false;  // in plain dot products
    std::vector<double> query, key;
    double query_norm = 1, scale = 1;
    double dot = 0;  // of the last key: of normalized vectors, before scaling
  };

  Axis axis(std::size_t i) const { return plan::neighborhood_axis(problem, i); }

  double value(const Expression& e, const Place& place) const {
    Expression::Scratch values;
    e.start_row(place, values);
    return e.at(place, values).f;
  }

  RowState start(const Row& row, bool plain = false) const {
    RowState s;
    s.plain = plain;
    s.local = local_coordinates(problem.q_axis, row.token);
    Place& p = s.place;
    p.b = row.batch;
    p.h = row.head;
    p.kv_h = row.head / (problem.heads / problem.kv_heads);
    p.q_index = position(problem.q_axis, s.local, s.coordinate);
    p.q = p.q_index + (module.align_end ? problem.keys - problem.tokens : 0);
    p.q_coordinate = s.coordinate.data();
    for (std::size_t i = 0; i < problem.axes.size(); ++i)
      s.ranges.push_back(neighborhood(axis(i), static_cast<int>(s.coordinate[i])));
    s.query.resize(static_cast<std::size_t>(problem.head_dim));
    s.key.resize(s.query.size());
    channels(problem.q, offset(problem.q, p.b, p.h, s.local), s.query);
    if (module.query_l2norm) s.query_norm = plain ? plain_norm(s.query) : norm(s.query);
    s.scale = scale.valid() ? value(plain ? plain_scale : scale, p)
                            : 1 / std::sqrt(static_cast<double>(problem.head_dim));
    if (score.valid()) (plain ? plain_score : score).start_row(p, s.score_values);
    if (mask.valid()) mask.start_row(p, s.mask_values);
    return s;
  }

  bool in_neighborhood(const RowState& s, const std::vector<std::int64_t>& key) const {
    for (std::size_t i = 0; i < problem.axes.size(); ++i)
      if (!contains(axis(i), s.ranges[i], static_cast<int>(s.coordinate[i]), static_cast<int>(key[i])))
        return false;
    return true;
  }

  bool masked_in(RowState& s) const { return !mask.valid() || mask.at(s.place, s.mask_values).b; }

  double score_of(RowState& s, const runtime::Strided& keys, std::int64_t at) const {
    channels(keys, at, s.key);
    if (s.plain) return plain_score_of(s);
    double dot = 0, squares = 0;
    for (std::size_t c = 0; c < s.key.size(); ++c) {
      dot += s.query[c] * s.key[c];
      squares += s.key[c] * s.key[c];
    }
    if (module.query_l2norm) dot /= s.query_norm;
    if (module.key_l2norm) dot /= std::max(std::sqrt(squares), 1e-12);
    s.dot = dot;
    s.place.score = s.scale * dot;
    return score.valid() ? score.at(s.place, s.score_values).f : s.place.score;
  }

  static double plain_norm(const std::vector<double>& x) {
    float squares = 0;
    for (const double v : x) squares += static_cast<float>(v) * static_cast<float>(v);
    return static_cast<double>(std::max(std::sqrt(squares), static_cast<float>(kLeastNorm)));
  }

  double plain_score_of(RowState& s) const {
    float dot = 0, squares = 0;
    for (std::size_t n = 0; n < s.key.size(); ++n) {
      const std::size_t c = s.last_channel_first ? s.key.size() - 1 - n : n;
      const auto x = static_cast<float>(s.key[c]);
      dot += static_cast<float>(s.query[c]) * x;
      squares += x * x;
    }
    if (module.query_l2norm) dot /= static_cast<float>(s.query_norm);
    if (module.key_l2norm) dot /= std::max(std::sqrt(squares), static_cast<float>(kLeastNorm));
    s.dot = static_cast<double>(dot);
    const float scaled = static_cast<float>(s.scale) * dot;
    s.place.score = static_cast<double>(scaled);
    return score.valid() ? plain_score.at(s.place, s.score_values).f : s.place.score;
  }

  // visit(score, values, v offset); the score is -inf where the key is not kept. `sure`: known to be kept.
  template <class Visit>
  void grid_key(RowState& s, const std::vector<std::int64_t>& local, bool sure, Visit visit) const {
    s.place.k = position(problem.k_axis, local, s.key_coordinate);
    s.place.k_coordinate = s.key_coordinate.data();
    s.place.context_key = false;
    const bool keep = sure || (in_neighborhood(s, s.key_coordinate) && masked_in(s));
    visit(keep ? score_of(s, problem.k, offset(problem.k, s.place.b, s.place.kv_h, local)) : -kInfinity,
          problem.v, offset(problem.v, s.place.b, s.place.kv_h, local));
  }
  template <class Visit>
  void context_key(RowState& s, std::int64_t j, bool sure, Visit visit) const {
    s.place.k = j;
    s.place.context_key = true;
    const std::vector<std::int64_t> local = {j};
    const bool keep = sure || masked_in(s);
    visit(keep ? score_of(s, problem.context_k, offset(problem.context_k, s.place.b, s.place.kv_h, local))
               : -kInfinity,
          problem.context_v, offset(problem.context_v, s.place.b, s.place.kv_h, local));
  }

  // Every key, the grid's and then the context's, in order.
  template <class Visit>
  void each_key(RowState& s, Visit visit) const {
    for (std::int64_t j = 0; j < problem.local_keys(); ++j)
      grid_key(s, local_coordinates(problem.k_axis, j), false, visit);
    for (std::int64_t j = 0; j < problem.context; ++j) context_key(s, j, false, visit);
  }

  // The keys of the tiles that a plan lists for the row.
  template <class Visit>
  void each_planned_key(RowState& s, const Row& where, const plan::TilePlan& plan, Visit visit) const {
    const plan::TileGrid& grid = plan.grid();
    const std::int64_t number = grid.row_of(where.token);
    plan::Row row;
    grid.row(number, row);
    std::vector<Stretch> box;
    std::vector<std::int64_t> local(grid.rank());
    plan.each_tile(plan.slices().of(where.batch, where.head), number, row, [&](std::int64_t tile, bool full) {
      grid.tile(row, tile, box);
      std::int64_t keys = 1;
      for (const Stretch& along : box) keys *= along.count;
      for (std::int64_t n = 0; n < keys; ++n) {
        if (grid.is_context(row, tile)) {
          context_key(s, box[0].first + n, full, visit);
          continue;
        }
        std::int64_t rest = n;
        for (std::size_t i = box.size(); i-- > 0; rest /= box[i].count)
          local[i] = box[i].first + rest % box[i].count * grid.axis(i).dilation - problem.k_axis[i].origin;
        grid_key(s, local, full, visit);
      }
    });
  }

  struct Kept {
    double score;
    const runtime::Strided* values;
    std::int64_t at;
  };
  std::vector<Kept> kept_keys(RowState& s, const Row& where, const plan::TilePlan* plan) const {
    std::vector<Kept> kept;
    const auto keep = [&](double x, const runtime::Strided& values, std::int64_t at) {
      if (x != -kInfinity) kept.push_back({x, &values, at});
    };
    if (plan == nullptr)
      each_key(s, keep);
    else
      each_planned_key(s, where, *plan, keep);
    return kept;
  }

  // A sink that no score exceeds is the LSE, also where it is inf, whose difference from itself is no number.
  template <class Float>
  static Float exp_of_sink(Float sink_value, Float base) {
    if (sink_value == -std::numeric_limits<Float>::infinity()) return 0;
    return sink_value == base ? 1 : std::exp(sink_value - base);
  }

  // Of the kept scores and the sink; NaN is passed over here and comes back in the sums.
  static double largest(const std::vector<Kept>& kept, double sink_value) {
    double result = sink_value;
    for (const Kept& k : kept) result = k.score > result ? k.score : result;
    return result == -kInfinity ? 0 : result;
  }

  RowResult row(const Row& where, const plan::TilePlan* plan = nullptr) const {
    RowState s = start(where);
    const std::vector<Kept> kept = kept_keys(s, where, plan);
    RowResult result{std::vector<double>(static_cast<std::size_t>(problem.value_dim)), 0,
                     static_cast<std::int64_t>(kept.size())};
    const bool softmax = module.normalize == ir::Normalize::softmax;
    if (softmax) {
      const double sink_value = sink.valid() ? value(sink, s.place) : -kInfinity;
      const double base = largest(kept, sink_value);
      double sum = exp_of_sink(sink_value, base);
      for (const Kept& k : kept) sum += std::exp(k.score - base);
      result.lse = base + std::log(sum);
    }
    std::vector<double> value_of(result.out.size());
    for (const Kept& k : kept) {
      const double weight = weight_of(module.normalize, k.score, result.lse);
      channels(*k.values, k.at, value_of);
      for (std::size_t c = 0; c < value_of.size(); ++c) result.out[c] += weight * value_of[c];
    }
    finish(output, s, result);
    return result;
  }

  void finish(const Expression& map, RowState& s, RowResult& result) const {
    if (!map.valid()) return;
    s.place.lse = result.lse;
    Expression::Scratch values;
    map.start_row(s.place, values);
    for (double& x : result.out) {
      s.place.out = x;
      x = map.at(s.place, values).f;
    }
  }

  double rounded(double x) const { return host::rounded(x, problem.q.dtype); }

  struct Pairs {
    std::vector<RowTrace::Pair> all;
    std::vector<std::int64_t> values;  // offset of each
  };
  Pairs pairs(RowState& s) const {
    Pairs kept;
    std::int64_t key = 0;
    each_key(s, [&](double x, const runtime::Strided&, std::int64_t at) {
      const std::int64_t grid = problem.local_keys(), number = key++;
      if (x == -kInfinity) return;
      kept.all.push_back({number < grid ? number : number - grid, number >= grid, s.dot, x, 0});
      kept.values.push_back(at);
    });
    return kept;
  }

  // Everything is computed in Real: double, or fp32 in a plain program.
  template <class Real>
  RowTrace trace(const Row& row) const {
    constexpr bool kPlain = std::is_same_v<Real, float>;
    const auto real = [](double x) { return static_cast<Real>(x); };
    RowState s = start(row, kPlain);
    RowTrace trace;
    Pairs kept = pairs(s);
    if (module.normalize == ir::Normalize::softmax) {
      const double sink_value = sink.valid() ? value(kPlain ? plain_sink : sink, s.place) : -kInfinity;
      double most = sink_value;
      for (const RowTrace::Pair& p : kept.all) most = p.score > most ? p.score : most;
      const Real base = most == -kInfinity ? Real(0) : real(most);
      Real sum = exp_of_sink(real(sink_value), base);
      for (const RowTrace::Pair& p : kept.all) sum += std::exp(real(p.score) - base);
      const Real lse = base + std::log(sum);
      s.place.lse = static_cast<double>(lse);
      trace.sink = static_cast<double>(exp_of_sink(real(sink_value), lse));
    }
    const auto weight = [&](const RowTrace::Pair& p) {
      return weight_of(module.normalize, real(p.score), real(s.place.lse));
    };
    std::vector<Real> out(static_cast<std::size_t>(problem.value_dim));
    std::vector<double> value_of(out.size());
    for (std::size_t i = 0; i < kept.all.size(); ++i) {
      RowTrace::Pair& p = kept.all[i];
      p.weight = static_cast<double>(weight(p));
      const Real factor = real(kPlain ? rounded(p.weight) : p.weight);
      channels(p.context ? problem.context_v : problem.v, kept.values[i], value_of);
      for (std::size_t c = 0; c < out.size(); ++c) out[c] += factor * real(value_of[c]);
    }
    trace.out.assign(out.begin(), out.end());
    if constexpr (kPlain) {
      for (double& x : trace.out) x = rounded(x);
      s.last_channel_first = true;
      kept = pairs(s);
      for (RowTrace::Pair& p : kept.all) p.weight = static_cast<double>(weight(p));
    }
    trace.pairs = std::move(kept.all);
    trace.query_norm = s.query_norm;
    trace.scale = s.scale;
    trace.place = s.place;
    trace.coordinate = std::move(s.coordinate);
    trace.place.q_coordinate = trace.coordinate.data();
    return trace;
  }

  RowResult plain_row(const Row& where) const {
    RowState s = start(where, true);
    const std::vector<Kept> kept = kept_keys(s, where, nullptr);
    RowResult result{std::vector<double>(static_cast<std::size_t>(problem.value_dim)), 0,
                     static_cast<std::int64_t>(kept.size())};
    const bool softmax = module.normalize == ir::Normalize::softmax;
    const double sink_value = softmax && sink.valid() ? value(plain_sink, s.place) : -kInfinity;
    const auto base = static_cast<float>(largest(kept, sink_value));
    float sum = exp_of_sink(static_cast<float>(sink_value), base);
    std::vector<float> out(result.out.size());
    std::vector<double> value_of(out.size());
    for (const Kept& k : kept) {
      const auto x = static_cast<float>(k.score);
      const float weight = softmax                                      ? std::exp(x - base)
                           : module.normalize == ir::Normalize::sigmoid ? 1 / (1 + std::exp(-x))
                                                                        : x;
      sum += weight;
      const auto low = static_cast<float>(rounded(static_cast<double>(weight)));
      channels(*k.values, k.at, value_of);
      for (std::size_t c = 0; c < out.size(); ++c) out[c] += low * static_cast<float>(value_of[c]);
    }
    if (softmax) result.lse = static_cast<double>(base + std::log(sum));
    for (std::size_t c = 0; c < out.size(); ++c)
      result.out[c] = static_cast<double>(!softmax ? out[c] : sum == 0 ? 0.0f : out[c] / sum);
    finish(plain_output, s, result);
    for (double& x : result.out) x = rounded(x);
    return result;
  }
};

RowTrace Interpreter::trace(const Row& row) const {
  return impl_->trace<double>(row);
}

RowTrace Interpreter::plain_trace(const Row& row) const {
  return impl_->trace<float>(row);
}

Interpreter::Interpreter(const ir::Module& module, const Problem& problem)
    : impl_(std::make_unique<Impl>(module, problem)) {}
Interpreter::~Interpreter() = default;

RowResult Interpreter::row(const Row& row) const {
  return impl_->row(row);
}
RowResult Interpreter::plain_row(const Row& row) const {
  return impl_->plain_row(row);
}

std::vector<double> Interpreter::scores(const Row& row) const {
  Impl::RowState s = impl_->start(row);
  std::vector<double> result;
  impl_->each_key(s, [&](double x, const runtime::Strided&, std::int64_t) { result.push_back(x); });
  return result;
}

std::vector<bool> Interpreter::kept(const Row& row) const {
  Impl::RowState s = impl_->start(row);
  const Problem& p = impl_->problem;
  std::vector<bool> result;
  std::vector<std::int64_t> coordinate;
  for (std::int64_t j = 0; j < p.local_keys(); ++j) {
    s.place.k = position(p.k_axis, local_coordinates(p.k_axis, j), coordinate);
    s.place.k_coordinate = coordinate.data();
    result.push_back(impl_->in_neighborhood(s, coordinate) && impl_->masked_in(s));
  }
  return result;
}

void Interpreter::run(unsigned threads, const plan::TilePlan* plan) const {
  const Problem& p = impl_->problem;
  const std::int64_t queries = p.local_queries();
  host::parallel_for(p.rows(), threads, [&](std::int64_t n) {
    const Row where{n / queries / p.heads, n / queries % p.heads, n % queries};
    const RowResult result = impl_->row(where, plan);
    const std::vector<std::int64_t> local = local_coordinates(p.q_axis, where.token);
    const std::int64_t at = offset(p.out, where.batch, where.head, local);
    for (std::int64_t c = 0; c < p.value_dim; ++c)
      host::store_element(p.out.data, p.out.dtype, at + c * p.out.dim,
                          result.out[static_cast<std::size_t>(c)]);
    if (p.lse.data != nullptr)
      host::store_element(p.lse.data, p.lse.dtype, offset(p.lse, where.batch, where.head, local), result.lse);
  });
}

}  // namespace vicinal::cpu
