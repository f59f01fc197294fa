// Expressions of a module evaluated on the host, a node at a time.
#pragma once

#include <span>
#include <vector>

#include "compiler/ir/module.h"
#include "runtime/binding/problem.h"

namespace vicinal::cpu {

// Where in the problem an expression is evaluated. Coordinates and positions are those of the whole grid.
struct Place {
  std::int64_t b = 0, h = 0, kv_h = 0;
  std::int64_t q = 0, q_index = 0, k = 0;
  bool context_key = false;
  const std::int64_t* q_coordinate = nullptr;
  const std::int64_t* k_coordinate = nullptr;
  double score = 0, out = 0, lse = 0;
};

// How an expression's floats are computed: in double; each operation rounded to fp32; or so, with
// approximations as coarse as the language lets them be.
enum class Arithmetic { wide, exact, plain };

// The nodes of an expression, or of several, in evaluation order, those that do not change from key to key
// first. `module` and `problem` must outlive it.
class Expression {
 public:
  Expression(const ir::Module& module, const runtime::Problem& problem, ir::NodeId root,
             Arithmetic arithmetic);
  // Several at once: evaluate() leaves the value of each in the scratch, by node.
  Expression(const ir::Module& module, const runtime::Problem& problem, std::span<const ir::NodeId> roots,
             Arithmetic arithmetic);

  bool valid() const { return root_.valid(); }

  // Values by node, reused from key to key of one row.
  using Scratch = std::vector<ir::Value>;
  void start_row(const Place& place, Scratch& values) const;
  void evaluate(const Place& place, Scratch& values) const;
  ir::Value at(const Place& place, Scratch& values) const;

 private:
  ir::Value value(std::uint32_t n, const Place& place, const Scratch& values) const;
  ir::Value symbol(const ir::Symbol& s, const Place& at) const;
  std::int64_t offset(std::uint32_t input, const ir::Node& node, std::size_t first, std::size_t last,
                      const Scratch& values) const;
  ir::Value load(std::uint32_t input, const ir::Node& node, const Scratch& values) const;
  ir::Value dot(const ir::Dot& d, const ir::Node& node, const Scratch& values) const;

  const ir::Module& module_;
  const runtime::Problem& problem_;
  ir::NodeId root_;
  Arithmetic arithmetic_;
  bool exact_;
  std::vector<std::uint32_t> per_row_, per_key_;
};

// An input may be left out where no result depends on it; it is evaluated all the same, as zeros.
bool left_out(const runtime::CapturedInput& input);

}  // namespace vicinal::cpu
