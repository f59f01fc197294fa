// The reference interpreter: attention straight from its definition, one row at a time, in double precision.
// Masks are evaluated exactly, each float operation rounded to fp32. Slow and plain on purpose: it is what
// every other backend is compared with.
#pragma once

#include <functional>
#include <span>

#include "runtime/binding/problem.h"
#include "runtime/cpu/expression.h"
#include "runtime/plan/tile_plan.h"

namespace vicinal::cpu {

// A query row by its place in the local tensors.
struct Row {
  std::int64_t batch, head;
  std::int64_t token;  // flattened over the local axes
};

struct RowResult {
  std::vector<double> out;  // value_dim
  double lse = 0;           // natural log; meaningless without softmax
  std::int64_t kept = 0;    // keys, context keys included
};

// What a row's result is made of, for who differentiates it.
struct RowTrace {
  Place place;                           // of the row, with its LSE
  std::vector<std::int64_t> coordinate;  // of the query; `place` points at it
  double query_norm = 1, scale = 1;
  double sink = 0;          // its share of the softmax
  std::vector<double> out;  // before the output expression
  struct Pair {
    std::int64_t key;  // number of the local token, or of the context's
    bool context;
    double dot;  // of the normalized vectors, before scaling
    double score, weight;
  };
  std::vector<Pair> pairs;  // the kept keys
};

class Interpreter {
 public:
  // `module` after check, with tensors of `problem` in host memory. Both must outlive the interpreter.
  Interpreter(const ir::Module& module, const runtime::Problem& problem);
  ~Interpreter();

  RowResult row(const Row& row) const;
  // The same row as a plain program in the tensors' own precision would compute it: products, norms and all
  // expressions in fp32, in order, weights rounded to the tensors' dtype, the output rounded once. What an
  // error is measured against. Nothing in it is computed in double: a scale or a sink that loses digits in
  // fp32 loses them in every program of that precision.
  RowResult plain_row(const Row& row) const;
  RowTrace trace(const Row& row) const;
  // Of that plain program, as one for gradients meets it: `out` is rounded as it was stored, and weights are
  // computed again from the LSE and from dot products that are summed in another order, as in a pass of their
  // own: else the weight of a row's only key would lose no digits.
  RowTrace plain_trace(const Row& row) const;
  // The row's scores after the score expression, -inf where a key is not kept; the grid's keys, then context
  // keys.
  std::vector<double> scores(const Row& row) const;

  // Which of the local grid's keys a row keeps, by the neighborhood and the mask alone.
  std::vector<bool> kept(const Row& row) const;

  // Computes every row, on `threads` threads, and stores out and lse in the tensors' dtypes. With a plan,
  // whose rows are tiles of queries, only the tiles that it lists are looked at; the oracle does without.
  void run(unsigned threads, const plan::TilePlan* plan = nullptr) const;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace vicinal::cpu
