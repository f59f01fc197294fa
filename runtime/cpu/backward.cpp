#include "runtime/cpu/backward.h"

#include <algorithm>

#include "runtime/cpu/differentiated.h"
#include "runtime/host/parallel.h"

namespace vicinal::cpu {
namespace {

using runtime::BoundDifferentials;
using runtime::BoundOutputDifferentials;
using runtime::Problem;
using runtime::Strided;

// The rows of one batch and key head, whose gradients of keys and values are nobody else's. Real: double, or
// float in a plain program.
template <class Real>
class GroupBackward {
  static constexpr bool kPlain = std::is_same_v<Real, float>;
  using Reals = std::vector<Real>;

 public:
  GroupBackward(const Differentiated& of, const BoundOutputDifferentials& given,
                const BoundDifferentials& wanted, std::int64_t batch, std::int64_t kv_head,
                LeafVector& leaves)
      : of_(of),
        p_(of.problem),
        given_(given),
        wanted_(wanted),
        batch_(batch),
        kv_head_(kv_head),
        leaves_(leaves),
        grid_(read(p_.k, p_.v, p_.k_axis, p_.local_keys())),
        context_(read(p_.context_k, p_.context_v, {{p_.context, p_.context, 0}}, p_.context)) {}

  void run() {
    const std::int64_t group = p_.heads / p_.kv_heads;
    for (std::int64_t h = kv_head_ * group; h < (kv_head_ + 1) * group; ++h)
      for (std::int64_t token = 0; token < p_.local_queries(); ++token) row({batch_, h, token});
    store(grid_, wanted_.k, wanted_.v, p_.k_axis);
    store(context_, wanted_.context_k, wanted_.context_v, {{p_.context, p_.context, 0}});
  }

 private:
  static Real real(double x) { return static_cast<Real>(x); }
  static Reals reals(const std::vector<double>& x) { return Reals(x.begin(), x.end()); }
  // As a factor of channels.
  Real factor(Real x) const { return kPlain ? real(host::rounded(static_cast<double>(x), p_.q.dtype)) : x; }
  static void store(const Strided& t, const Reals& x, std::int64_t batch, std::int64_t head,
                    const std::vector<std::int64_t>& local) {
    const std::vector<double> wide(x.begin(), x.end());
    Differentiated::store(t, wide.data(), static_cast<std::int64_t>(x.size()), batch, head, local);
  }

  // Keys and values with their gradients so far; keys as they enter the dot product.
  struct Key {
    Direction<Real> direction;
    Reals key, value, d_key, d_value;
  };

  std::vector<Key> read(const Strided& k, const Strided& v, const std::vector<runtime::GridAxis>& axes,
                        std::int64_t count) const {
    std::vector<Key> keys;
    for (std::int64_t j = 0; j < count; ++j) {
      const std::vector<std::int64_t> local = local_coordinates(axes, j);
      Reals x = reals(Differentiated::channels(k, p_.head_dim, batch_, kv_head_, local));
      Key key{Direction<Real>(x), std::move(x),
              reals(Differentiated::channels(v, p_.value_dim, batch_, kv_head_, local)),
              Reals(static_cast<std::size_t>(p_.head_dim)), Reals(static_cast<std::size_t>(p_.value_dim))};
      if (of_.module.key_l2norm) key.key = key.direction.unit;
      keys.push_back(std::move(key));
    }
    return keys;
  }

  void store(const std::vector<Key>& keys, const Strided& k, const Strided& v,
             const std::vector<runtime::GridAxis>& axes) const {
    for (std::size_t j = 0; j < keys.size(); ++j) {
      const std::vector<std::int64_t> local = local_coordinates(axes, static_cast<std::int64_t>(j));
      const Key& key = keys[j];
      store(k, of_.module.key_l2norm ? key.direction.differential(key.d_key) : key.d_key, batch_, kv_head_,
            local);
      store(v, key.d_value, batch_, kv_head_, local);
    }
  }

  // Of out and lse before the output expression.
  struct Upstream {
    Reals out;
    Real lse = 0;
  };
  Upstream through_output(const RowTrace& trace, const Row& where, const std::vector<std::int64_t>& local) {
    Upstream result{reals(Differentiated::channels(given_.out, p_.value_dim, where.batch, where.head, local)),
                    0};
    Place place = trace.place;
    RootDifferential::Scratch values;
    of_.output.start_row(place, values);
    leaves_.lse = 0;
    for (std::size_t c = 0; c < result.out.size(); ++c) {
      place.out = trace.out[c];
      leaves_.out = 0;
      of_.output.pull(place, values, static_cast<double>(result.out[c]), leaves_);
      result.out[c] = real(leaves_.out);
    }
    result.lse = real(leaves_.lse);
    if (given_.lse.data != nullptr)
      result.lse += real(host::load_element(given_.lse.data, given_.lse.dtype,
                                            offset(given_.lse, where.batch, where.head, local)));
    return result;
  }

  void row(const Row& where) {
    const RowTrace trace = kPlain ? of_.interpreter.plain_trace(where) : of_.interpreter.trace(where);
    const std::vector<std::int64_t> local = local_coordinates(p_.q_axis, where.token);
    const Upstream up = through_output(trace, where, local);
    // What all weights of a softmax share in. Summed in another order than the gradients of weights are, as
    // in a pass of its own: else a plain program would lose no digits where the two cancel in a row of one
    // key.
    const Real shared = up.lse - dot(Reals(up.out.rbegin(), up.out.rend()),
                                     Reals(trace.out.rbegin(), trace.out.rend())),
               scale = real(trace.scale);
    if (trace.sink != 0)
      of_.pull(of_.sink, trace.place, static_cast<double>(real(trace.sink) * shared), leaves_);

    Reals query = reals(Differentiated::channels(p_.q, p_.head_dim, where.batch, where.head, local));
    const Direction<Real> direction(query);
    if (of_.module.query_l2norm) query = direction.unit;
    Reals d_query(query.size());
    Place place = trace.place;
    RootDifferential::Scratch values;
    of_.score.start_row(place, values);
    std::vector<std::int64_t> coordinate;
    Real d_scale = 0;
    for (const RowTrace::Pair& pair : trace.pairs) {
      Key& key = (pair.context ? context_ : grid_)[static_cast<std::size_t>(pair.key)];
      const Real weight = factor(real(pair.weight)), product = real(pair.dot);
      for (std::size_t c = 0; c < up.out.size(); ++c) key.d_value[c] += weight * up.out[c];
      of_.go_to(pair, place, coordinate);
      place.score = static_cast<double>(scale * product);
      leaves_.score = 0;
      of_.score.pull(place, values, static_cast<double>(d_score(pair, dot(up.out, key.value), shared)),
                     leaves_);
      d_scale += real(leaves_.score) * product;
      const Real d_dot = factor(real(leaves_.score) * scale);
      for (std::size_t c = 0; c < query.size(); ++c) {
        d_query[c] += d_dot * key.key[c];
        key.d_key[c] += d_dot * query[c];
      }
    }
    if (!trace.pairs.empty()) of_.pull(of_.scale, trace.place, static_cast<double>(d_scale), leaves_);
    if (of_.module.query_l2norm) d_query = direction.differential(std::move(d_query));
    store(wanted_.q, d_query, where.batch, where.head, local);
  }

  // Of a score after the score expression.
  Real d_score(const RowTrace::Pair& pair, Real d_weight, Real shared) const {
    const Real weight = real(pair.weight);
    switch (of_.module.normalize) {
      case ir::Normalize::softmax: return weight * (d_weight + shared);
      case ir::Normalize::sigmoid: return weight * (1 - weight) * d_weight;
      case ir::Normalize::none: return d_weight;
    }
    return 0;
  }

  const Differentiated& of_;
  const Problem& p_;
  const BoundOutputDifferentials& given_;
  const BoundDifferentials& wanted_;
  const std::int64_t batch_, kv_head_;
  LeafVector& leaves_;
  std::vector<Key> grid_, context_;
};

template <class Real>
void groups_backward(const Differentiated& of, const BoundOutputDifferentials& given,
                     const BoundDifferentials& wanted, unsigned threads) {
  const ir::Module& module = of.module;
  const Problem& problem = of.problem;
  LeafVector total = LeafVector::zeros(module, problem);
  // A wave of groups at a time, each with sums of its own, added up in the groups' order.
  const std::int64_t groups = problem.batch * problem.kv_heads;
  for (std::int64_t first = 0; first < groups; first += threads) {
    const std::int64_t count = std::min<std::int64_t>(threads, groups - first);
    std::vector<LeafVector> sums(static_cast<std::size_t>(count), LeafVector::zeros(module, problem));
    host::parallel_for(count, threads, [&](std::int64_t i) {
      const std::int64_t n = first + i;
      GroupBackward<Real>(of, given, wanted, n / problem.kv_heads, n % problem.kv_heads,
                          sums[static_cast<std::size_t>(i)])
          .run();
    });
    for (const LeafVector& sum : sums) total.add(sum);
  }
  for (std::size_t i = 0; i < module.inputs.size(); ++i)
    store_captured(total.inputs[i], problem.inputs[i].extents, wanted.inputs[i]);
  for (std::size_t i = 0; i < module.params.size(); ++i)
    store_captured({total.params[i]}, {}, wanted.params[i]);
}

}  // namespace

void backward(const ir::Module& module, const Problem& problem, const BoundOutputDifferentials& given,
              const BoundDifferentials& wanted, unsigned threads) {
  groups_backward<double>(Differentiated(module, problem), given, wanted, threads);
}

void plain_backward(const ir::Module& module, const Problem& problem, const BoundOutputDifferentials& given,
                    const BoundDifferentials& wanted, unsigned threads) {
  groups_backward<float>(Differentiated(module, problem, Arithmetic::plain), given, wanted, threads);
}

}  // namespace vicinal::cpu
