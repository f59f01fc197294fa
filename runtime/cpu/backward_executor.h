// Runs a compiled backward pass.
//
// A part is some rows of queries of one key head. It adds to gradients of keys and values that nobody else
// adds to, so that no sum depends on when a thread gets to it; how many parts there are follows from the
// problem alone. Where a key head has several, their sums are added up in order afterwards.
#pragma once

#include "runtime/cpu/backward_worker.h"
#include "runtime/cpu/root_differential.h"
#include "runtime/host/spares.h"

namespace vicinal::cpu {

class BackwardExecutor {
 public:
  // `differentiated`: the module before any pass, with its partials; must outlive it.
  BackwardExecutor(std::shared_ptr<const CompiledKernel> compiled, const ir::Module& differentiated)
      : compiled_(std::move(compiled)), differentiated_(differentiated) {}

  const CompiledKernel& compiled() const { return *compiled_; }

  // The same bits on any number of threads. The plan's rows are tiles of queries, of the shape that the code
  // was cut for at most. Errors (internal): LLVM refuses code that NaN or Inf in the tensors made necessary.
  Result<void> run(const BackwardRun& run, unsigned threads) const;

 private:
  // What is kept from run to run.
  struct Team {
    std::vector<std::unique_ptr<BackwardWorker>> workers;
    std::vector<KeySums> sums;
  };
  class Run;

  std::shared_ptr<const CompiledKernel> compiled_;
  const ir::Module& differentiated_;
  mutable host::Spares<Team> teams_;
};

}  // namespace vicinal::cpu
