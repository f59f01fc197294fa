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

// The rows of one batch and key head, whose gradients of keys and values are nobody else's.
class GroupBackward {
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
  // Keys and values with their gradients so far; keys as they enter the dot product.
  struct Key {
    Direction direction;
    std::vector<double> key, value, d_key, d_value;
  };

  std::vector<Key> read(const Strided& k, const Strided& v, const std::vector<runtime::GridAxis>& axes,
                        std::int64_t count) const {
    std::vector<Key> keys;
    for (std::int64_t j = 0; j < count; ++j) {
      const std::vector<std::int64_t> local = local_coordinates(axes, j);
      std::vector<double> x = Differentiated::channels(k, p_.head_dim, batch_, kv_head_, local);
      Key key{Direction(x), std::move(x), Differentiated::channels(v, p_.value_dim, batch_, kv_head_, local),
              std::vector<double>(static_cast<std::size_t>(p_.head_dim)),
              std::vector<double>(static_cast<std::size_t>(p_.value_dim))};
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
      const std::vector<double> d_key =
          of_.module.key_l2norm ? key.direction.differential(key.d_key) : key.d_key;
      Differentiated::store(k, d_key.data(), p_.head_dim, batch_, kv_head_, local);
      Differentiated::store(v, key.d_value.data(), p_.value_dim, batch_, kv_head_, local);
    }
  }

  // Of out and lse before the output expression.
  struct Upstream {
    std::vector<double> out;
    double lse = 0;
  };
  Upstream through_output(const RowTrace& trace, const Row& where, const std::vector<std::int64_t>& local) {
    Upstream result{Differentiated::channels(given_.out, p_.value_dim, where.batch, where.head, local), 0};
    Place place = trace.place;
    RootDifferential::Scratch values;
    of_.output.start_row(place, values);
    leaves_.lse = 0;
    for (std::size_t c = 0; c < result.out.size(); ++c) {
      place.out = trace.out[c];
      leaves_.out = 0;
      of_.output.pull(place, values, result.out[c], leaves_);
      result.out[c] = leaves_.out;
    }
    result.lse = leaves_.lse;
    if (given_.lse.data != nullptr)
      result.lse += host::load_element(given_.lse.data, given_.lse.dtype,
                                       offset(given_.lse, where.batch, where.head, local));
    return result;
  }

  void row(const Row& where) {
    const RowTrace trace = of_.interpreter.trace(where);
    const std::vector<std::int64_t> local = local_coordinates(p_.q_axis, where.token);
    const Upstream up = through_output(trace, where, local);
    // What all weights of a softmax share in.
    const double shared = up.lse - dot(up.out, trace.out);
    if (trace.sink != 0) of_.pull(of_.sink, trace.place, trace.sink * shared, leaves_);

    std::vector<double> query = Differentiated::channels(p_.q, p_.head_dim, where.batch, where.head, local);
    const Direction direction(query);
    if (of_.module.query_l2norm) query = direction.unit;
    std::vector<double> d_query(query.size());
    Place place = trace.place;
    RootDifferential::Scratch values;
    of_.score.start_row(place, values);
    std::vector<std::int64_t> coordinate;
    double d_scale = 0;
    for (const RowTrace::Pair& pair : trace.pairs) {
      Key& key = (pair.context ? context_ : grid_)[static_cast<std::size_t>(pair.key)];
      for (std::size_t c = 0; c < up.out.size(); ++c) key.d_value[c] += pair.weight * up.out[c];
      of_.go_to(pair, place, coordinate);
      place.score = trace.scale * pair.dot;
      leaves_.score = 0;
      of_.score.pull(place, values, d_score(pair, dot(up.out, key.value), shared), leaves_);
      d_scale += leaves_.score * pair.dot;
      for (std::size_t c = 0; c < query.size(); ++c) {
        d_query[c] += leaves_.score * trace.scale * key.key[c];
        key.d_key[c] += leaves_.score * trace.scale * query[c];
      }
    }
    if (!trace.pairs.empty()) of_.pull(of_.scale, trace.place, d_scale, leaves_);
    if (of_.module.query_l2norm) d_query = direction.differential(std::move(d_query));
    Differentiated::store(wanted_.q, d_query.data(), p_.head_dim, where.batch, where.head, local);
  }

  // Of a score after the score expression.
  double d_score(const RowTrace::Pair& pair, double d_weight, double shared) const {
    switch (of_.module.normalize) {
      case ir::Normalize::softmax: return pair.weight * (d_weight + shared);
      case ir::Normalize::sigmoid: return pair.weight * (1 - pair.weight) * d_weight;
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

}  // namespace

void backward(const ir::Module& module, const Problem& problem, const BoundOutputDifferentials& given,
              const BoundDifferentials& wanted, unsigned threads) {
  const Differentiated of(module, problem);
  LeafVector total = LeafVector::zeros(module, problem);
  // A wave of groups at a time, each with sums of its own, added up in the groups' order.
  const std::int64_t groups = problem.batch * problem.kv_heads;
  for (std::int64_t first = 0; first < groups; first += threads) {
    const std::int64_t count = std::min<std::int64_t>(threads, groups - first);
    std::vector<LeafVector> sums(static_cast<std::size_t>(count), LeafVector::zeros(module, problem));
    host::parallel_for(count, threads, [&](std::int64_t i) {
      const std::int64_t n = first + i;
      GroupBackward(of, given, wanted, n / problem.kv_heads, n % problem.kv_heads,
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

}  // namespace vicinal::cpu
