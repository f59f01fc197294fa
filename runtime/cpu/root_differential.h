// The derivative of one root of a variant at a place, as a linear map between what it is computed from and
// what it is: backward it pulls a gradient back, forward it pushes a tangent on.
#pragma once

#include "runtime/cpu/expression.h"

namespace vicinal::cpu {

// A number for each value that derivatives are taken with respect to: a gradient that adds up, or a tangent.
struct LeafVector {
  double score = 0, out = 0, lse = 0;
  std::vector<double> params;               // by the module's number
  std::vector<std::vector<double>> inputs;  // by the module's number, in C order; of learnable inputs only

  // Zeros for the module's tables.
  static LeafVector zeros(const ir::Module& module, const runtime::Problem& problem);
  // To params and inputs.
  void add(const LeafVector& other);
};

// A root that is not assigned is what it stands for: the scaled dot product, `out`, or a constant.
class RootDifferential {
 public:
  // `module` with its partials; it and `problem` must outlive this.
  // In double, or plain: expressions and sums in fp32.
  RootDifferential(const ir::Module& module, const runtime::Problem& problem, ir::Root root,
                   Arithmetic arithmetic = Arithmetic::wide);

  using Scratch = Expression::Scratch;
  void start_row(const Place& place, Scratch& values) const { expression_.start_row(place, values); }

  // to += upstream * derivative. Where a derivative is 0 nothing is added, not even if upstream is NaN: that
  // is the branch that was not taken.
  void pull(const Place& place, Scratch& values, double upstream, LeafVector& to) const;
  double push(const Place& place, Scratch& values, const LeafVector& from) const;

 private:
  // visit(number, its index within a vector of leaves) for each factor of a partial.
  template <class Vector, class Visit>
  void each(const Place& place, Scratch& values, Vector& leaves, Visit visit) const;
  template <class Vector, class Visit>
  void elements(const ir::Partial& partial, const Scratch& values, Vector& leaves, Visit visit) const;
  std::int64_t element(std::uint32_t input, const ir::Node& node, std::size_t first, std::size_t last,
                       const Scratch& values) const;

  const ir::Module& module_;
  const runtime::Problem& problem_;
  std::vector<ir::Partial> partials_;
  Expression expression_;
  bool plain_;
  double LeafVector::*identity_ = nullptr;
};

}  // namespace vicinal::cpu
