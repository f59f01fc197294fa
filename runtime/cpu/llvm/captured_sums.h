// Gradients of what is captured, added up where a root's gradients are computed: over the keys of sixteen
// queries, or over the channels of one.
#pragma once

#include "runtime/cpu/llvm/expressions.h"

namespace vicinal::cpu {

class CapturedSums {
 public:
  // Of the sites by which gradients of a root leave, from one kind of keys. Emits what it calls: stands
  // before the function that it is used in.
  CapturedSums(Emitter& e, const emit::CpuKernel& kernel, bool context, ir::Root of);

  std::ptrdiff_t size() const { return std::ssize(sites_); }
  // What the expressions of start() have to be made with.
  void add_roots(std::vector<ir::NodeId>& roots) const;
  // Stands before all loops. `lanes`: how many of a vector's count; null: all.
  void start(Expressions& expressions, Value* query_tile, Value* lanes);

  // A vector for each site, empty so far.
  Values zeros() const { return Values(sites_.size(), e_.number(e_.vector(e_.f32), 0)); }
  // Adds what gradients of the root give at a place; where `keep` is false they do not count. Null: all do.
  Values add(const Values& so_far, Value* gradient, Value* keep, const Expressions::Symbols& at);
  // To totals and elements, from the sums over all keys or channels. Where queries are lanes they are in `at`
  // too.
  void finish(const Values& sums, const Expressions::Symbols& at);
  // Of the lanes that count.
  Value* sum_of(Value* x) const;

 private:
  struct Site {
    emit::CpuSite of;
    std::int64_t total;                      // its number among the totals
    bool summed;                             // over keys or channels before it is added to an element
    llvm::Function* add_products = nullptr;  // of a Dot
  };
  void add_to_elements(const Site& site, Value* x, const Expressions::Symbols& at);

  Emitter& e_;
  const ir::Module& module_;
  std::vector<Site> sites_;
  Expressions* expressions_ = nullptr;
  Value *query_tile_ = nullptr, *count_ = nullptr, *alive_ = nullptr, *scratch_ = nullptr;
};

// gradient * slope; `nothing` where the slope is 0 or `keep` false, whatever the gradient is.
Value* times_slope(Emitter& e, Value* gradient, Value* slope, Value* keep, double nothing = 0);

// The sum of a vector's lanes, in one order.
Value* sum_of_lanes(Emitter& e, Value* x);

// Adds a float to the double at the address.
void add_to_double(Emitter& e, Value* address, Value* x);

}  // namespace vicinal::cpu
