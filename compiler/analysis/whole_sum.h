// Int expressions as sums in whole numbers. The language's ints wrap, and a sum that might says nothing.
#pragma once

#include <optional>
#include <vector>

#include "compiler/analysis/set_value.h"

namespace vicinal::analysis {

// A whole number that a row has: a sum, in 64 bits, of 32-bit expressions that do not vary with the key.
struct RowSum {
  struct Term {
    ir::NodeId value;
    bool minus = false;
  };
  std::vector<Term> terms;
  std::int64_t constant = 0;

  // This and `other`, once or less once.
  RowSum plus(const RowSum& other, bool minus = false) const;
};

// key * k + row
struct WholeSum {
  int key = 0;
  RowSum row;

  WholeSum plus(const WholeSum& other, bool minus = false) const;
};

// The number of the query and of the key. Along one axis the coordinate is the position; the row in memory is
// the position unless `align = end` shifts it.
bool is_query(const ir::Module& module, ir::NodeId node);
bool is_key(const ir::Module& module, ir::NodeId node);

class WholeSums {
 public:
  explicit WholeSums(const ir::Module& module);

  // Of an int node. What does not vary with the key is one term, whatever it is; an add, sub or neg of what
  // does is looked through where it provably does not wrap. Nothing for any other node.
  const std::optional<WholeSum>& operator[](ir::NodeId node) const { return sums_[node.value]; }
  // What an int node can be, wherever there is a pair of a query and a key.
  ranges::Range range(ir::NodeId node) const { return values_[node.value].i; }

 private:
  void symbol(const ir::Module& module, ir::NodeId node);
  // What the sum can be if it is an int.
  std::optional<ranges::Range> fitting(const ir::Module& module, const WholeSum& sum) const;

  std::vector<std::optional<WholeSum>> sums_;
  std::vector<SetValue> values_;
};

}  // namespace vicinal::analysis
