// One thread's part of a backward pass: parts of a key head's queries, each of which adds up gradients of its
// own.
#pragma once

#include "runtime/binding/differentials.h"
#include "runtime/cpu/worker.h"

namespace vicinal::cpu {

// What all threads of a run compute.
struct BackwardRun {
  const runtime::Problem& problem;  // with the out and lse of a run
  const plan::TilePlan& plan;
  const runtime::BoundOutputDifferentials& given;  // out's in the problem's dtype
  const runtime::BoundDifferentials& wanted;

  // Rows of the plan of all heads of a key head, which are cut into parts.
  std::int64_t rows() const { return plan.grid().rows() * group(); }
  std::int64_t group() const { return problem.heads / problem.kv_heads; }
};

class BackwardWorker : Worker {
 public:
  BackwardWorker(const CompiledKernel& compiled, const ir::Module& checked);
  using Worker::contaminated;

  // For a run, which must outlive it.
  void start(const BackwardRun& run);

  struct Part {
    std::int64_t batch, kv_head, first, last;  // of BackwardRun::rows()
  };
  // Stores dQ of the part's queries, and adds up the rest: `sums` begin at nothing; of every head of the
  // group `total_count` totals; gradients of inputs, as QueryTile has them.
  void part(const Part& part, KeySums& sums, double* totals, std::size_t total_count,
            const CodeInput* gradients);

 private:
  // What was not finite may be what comes from keys that are not kept.
  bool compute_part(const Code& code, const Part& part, double* totals, std::size_t total_count);
  void fill_gradients();
  void store_queries();

  const BackwardRun* run_ = nullptr;
  std::vector<std::int64_t> d_out_rows_;
  std::vector<float> d_lse_, d_query_;
};

}  // namespace vicinal::cpu
