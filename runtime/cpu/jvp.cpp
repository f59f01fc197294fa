#include <functional>

#include "runtime/cpu/backward.h"
#include "runtime/cpu/differentiated.h"
#include "runtime/host/parallel.h"

namespace vicinal::cpu {
namespace {

using runtime::BoundDifferentials;
using runtime::BoundOutputDifferentials;
using runtime::Problem;
using runtime::Strided;

// Tangents of params and inputs.
LeafVector read_captured(const ir::Module& module, const Problem& problem, const BoundDifferentials& given) {
  LeafVector v = LeafVector::zeros(module, problem);
  for (std::size_t i = 0; i < v.params.size(); ++i)
    if (given.params[i].data != nullptr)
      v.params[i] = host::load_element(given.params[i].data, given.params[i].dtype, 0);
  for (std::size_t i = 0; i < v.inputs.size(); ++i) {
    const BoundDifferentials::Captured& x = given.inputs[i];
    const std::vector<std::int64_t>& extents = problem.inputs[i].extents;
    if (x.data == nullptr) continue;
    for (std::size_t n = 0; n < v.inputs[i].size(); ++n) {
      std::int64_t at = 0, rest = static_cast<std::int64_t>(n);
      for (std::size_t d = extents.size(); d-- > 0; rest /= extents[d])
        at += rest % extents[d] * x.strides[d];
      v.inputs[i][n] = host::load_element(x.data, x.dtype, at);
    }
  }
  return v;
}

class RowJvp {
 public:
  RowJvp(const Differentiated& of, const BoundDifferentials& given, const LeafVector& captured)
      : of_(of), p_(of.problem), given_(given), leaves_(captured) {}

  struct Result {
    std::vector<double> out;
    double lse = 0;
  };
  Result run(const Row& where) {
    const RowTrace trace = of_.interpreter.trace(where);
    const std::vector<std::int64_t> local = local_coordinates(p_.q_axis, where.token);
    const Vector query = vector(p_.q, given_.q, of_.module.query_l2norm, where.batch, where.head, local);
    const double scale = of_.push(of_.scale, trace.place, leaves_);
    Place place = trace.place;
    RootDifferential::Scratch values;
    of_.score.start_row(place, values);
    std::vector<std::int64_t> coordinate;
    std::vector<double> scores;
    Result result{std::vector<double>(trace.out.size()), 0};
    for (const RowTrace::Pair& pair : trace.pairs) {
      const std::vector<std::int64_t> at = of_.go_to(pair, place, coordinate);
      const Vector key =
          vector(pair.context ? p_.context_k : p_.k, pair.context ? given_.context_k : given_.k,
                 of_.module.key_l2norm, where.batch, place.kv_h, at);
      place.score = trace.scale * pair.dot;
      leaves_.score =
          scale * pair.dot + trace.scale * (dot(query.tangent, key.value) + dot(query.value, key.tangent));
      scores.push_back(of_.score.push(place, values, leaves_));
      result.lse += pair.weight * scores.back();
    }
    const bool softmax = of_.module.normalize == ir::Normalize::softmax;
    if (trace.sink != 0) result.lse += trace.sink * of_.push(of_.sink, trace.place, leaves_);
    if (!softmax) result.lse = 0;
    for (std::size_t i = 0; i < trace.pairs.size(); ++i)
      value(trace.pairs[i], d_weight(trace.pairs[i].weight, scores[i], result.lse), place, result.out);
    through_output(trace, result);
    return result;
  }

 private:
  // A query or key as it enters the dot product, and its tangent.
  struct Vector {
    std::vector<double> value, tangent;
  };
  Vector vector(const Strided& of, const Strided& tangent, bool l2norm, std::int64_t batch, std::int64_t head,
                const std::vector<std::int64_t>& local) const {
    Vector x{Differentiated::channels(of, p_.head_dim, batch, head, local),
             Differentiated::channels(tangent, p_.head_dim, batch, head, local)};
    if (!l2norm) return x;
    const Direction direction(x.value);
    return {direction.unit, direction.differential(std::move(x.tangent))};
  }

  double d_weight(double weight, double d_score, double d_lse) const {
    switch (of_.module.normalize) {
      case ir::Normalize::softmax: return weight * (d_score - d_lse);
      case ir::Normalize::sigmoid: return weight * (1 - weight) * d_score;
      case ir::Normalize::none: return d_score;
    }
    return 0;
  }

  void value(const RowTrace::Pair& pair, double d_weight, Place& place, std::vector<double>& out) const {
    std::vector<std::int64_t> coordinate;
    const std::vector<std::int64_t> at = of_.go_to(pair, place, coordinate);
    const Strided &v = pair.context ? p_.context_v : p_.v,
                  &tangent = pair.context ? given_.context_v : given_.v;
    const std::vector<double> x = Differentiated::channels(v, p_.value_dim, place.b, place.kv_h, at),
                              d = Differentiated::channels(tangent, p_.value_dim, place.b, place.kv_h, at);
    for (std::size_t c = 0; c < out.size(); ++c) out[c] += d_weight * x[c] + pair.weight * d[c];
  }

  void through_output(const RowTrace& trace, Result& result) {
    Place place = trace.place;
    RootDifferential::Scratch values;
    of_.output.start_row(place, values);
    leaves_.lse = result.lse;
    for (std::size_t c = 0; c < result.out.size(); ++c) {
      place.out = trace.out[c];
      leaves_.out = result.out[c];
      result.out[c] = of_.output.push(place, values, leaves_);
    }
  }

  const Differentiated& of_;
  const Problem& p_;
  const BoundDifferentials& given_;
  LeafVector leaves_;  // of params and inputs; the others as the row goes on
};

}  // namespace

void jvp(const ir::Module& module, const Problem& problem, const BoundDifferentials& given,
         const BoundOutputDifferentials& wanted, unsigned threads) {
  const Differentiated of(module, problem);
  const LeafVector captured = read_captured(module, problem, given);
  const std::int64_t queries = problem.local_queries();
  // A batch and head at a time: a copy of the captured tangents for each.
  host::parallel_for(problem.batch * problem.heads, threads, [&](std::int64_t n) {
    RowJvp row(of, given, captured);
    for (std::int64_t token = 0; token < queries; ++token) {
      const Row where{n / problem.heads, n % problem.heads, token};
      const RowJvp::Result result = row.run(where);
      const std::vector<std::int64_t> local = local_coordinates(problem.q_axis, token);
      Differentiated::store(wanted.out, result.out.data(), problem.value_dim, where.batch, where.head, local);
      Differentiated::store(wanted.lse, &result.lse, 1, where.batch, where.head, local);
    }
  });
}

}  // namespace vicinal::cpu
