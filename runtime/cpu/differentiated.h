// What reverse and forward mode share: the variant's derivatives, and vectors read from tensors.
#pragma once

#include "runtime/binding/differentials.h"
#include "runtime/cpu/interpreter.h"
#include "runtime/cpu/places.h"
#include "runtime/cpu/root_differential.h"
#include "runtime/host/elements.h"

namespace vicinal::cpu {

struct Differentiated {
  const ir::Module& module;
  const runtime::Problem& problem;
  Interpreter interpreter;
  RootDifferential score, scale, sink, output;

  Differentiated(const ir::Module& m, const runtime::Problem& p, Arithmetic arithmetic = Arithmetic::wide)
      : module(m),
        problem(p),
        interpreter(m, p),
        score(m, p, ir::Root::score, arithmetic),
        scale(m, p, ir::Root::scale, arithmetic),
        sink(m, p, ir::Root::sink, arithmetic),
        output(m, p, ir::Root::output, arithmetic) {}

  // Derivatives of a root that is computed once for a row.
  void pull(const RootDifferential& root, const Place& place, double upstream, LeafVector& to) const {
    RootDifferential::Scratch values;
    root.start_row(place, values);
    root.pull(place, values, upstream, to);
  }
  double push(const RootDifferential& root, const Place& place, const LeafVector& from) const {
    RootDifferential::Scratch values;
    root.start_row(place, values);
    return root.push(place, values, from);
  }

  // The local coordinates of a pair's key; the place is told of the key.
  std::vector<std::int64_t> go_to(const RowTrace::Pair& pair, Place& place,
                                  std::vector<std::int64_t>& coordinate) const {
    place.context_key = pair.context;
    place.score = 0;
    if (pair.context) {
      place.k = pair.key;
      return {pair.key};
    }
    std::vector<std::int64_t> local = local_coordinates(problem.k_axis, pair.key);
    place.k = position(problem.k_axis, local, coordinate);
    place.k_coordinate = coordinate.data();
    return local;
  }

  // Channels of a token. A tensor without data is 0.
  static std::vector<double> channels(const runtime::Strided& t, std::int64_t count, std::int64_t batch,
                                      std::int64_t head, const std::vector<std::int64_t>& local) {
    std::vector<double> x(static_cast<std::size_t>(count));
    if (t.data == nullptr) return x;
    host::load_elements(t.data, t.dtype, offset(t, batch, head, local), t.dim, count, x.data());
    return x;
  }
  static void store(const runtime::Strided& t, const double* x, std::int64_t count, std::int64_t batch,
                    std::int64_t head, const std::vector<std::int64_t>& local) {
    if (t.data == nullptr) return;
    const std::int64_t at = offset(t, batch, head, local);
    for (std::int64_t c = 0; c < count; ++c) host::store_element(t.data, t.dtype, at + c * t.dim, x[c]);
  }
};

template <class Real>
Real dot(const std::vector<Real>& x, const std::vector<Real>& y) {
  Real sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

// A vector divided by its norm.
template <class Real>
struct Direction {
  std::vector<Real> unit;
  Real length = 0;

  explicit Direction(std::vector<Real> x) : unit(std::move(x)), length(norm(unit)) {
    for (Real& v : unit) v /= length;
  }
  // The derivative of x / |x| is symmetric, so this serves both modes: (v - u <u, v>) / |x|. Where the norm
  // is at its floor it is 0.
  std::vector<Real> differential(std::vector<Real> v) const {
    const Real along = dot(unit, v);
    for (std::size_t i = 0; i < v.size(); ++i)
      v[i] = length > static_cast<Real>(kLeastNorm) ? (v[i] - unit[i] * along) / length : 0;
    return v;
  }
};

// Takes a row of gradients back through the division of a vector of the tensor's by its norm.
inline void through_norm(float* row, const runtime::Strided& t, std::int64_t channels, std::int64_t at) {
  std::vector<double> x(static_cast<std::size_t>(channels));
  host::load_elements(t.data, t.dtype, at, t.dim, channels, x.data());
  const std::vector<double> d = Direction(std::move(x)).differential({row, row + channels});
  for (std::int64_t c = 0; c < channels; ++c) row[c] = static_cast<float>(d[static_cast<std::size_t>(c)]);
}

// Stores sums in C order where they are wanted.
inline void store_captured(const std::vector<double>& sums, const std::vector<std::int64_t>& extents,
                           const runtime::BoundDifferentials::Captured& target) {
  if (target.data == nullptr) return;
  for (std::size_t n = 0; n < sums.size(); ++n) {
    std::int64_t at = 0, rest = static_cast<std::int64_t>(n);
    for (std::size_t i = extents.size(); i-- > 0; rest /= extents[i])
      at += rest % extents[i] * target.strides[i];
    host::store_element(target.data, target.dtype, at, sums[n]);
  }
}

}  // namespace vicinal::cpu
