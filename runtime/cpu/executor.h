// Runs a compiled kernel, on workers that it keeps from run to run.
#pragma once

#include "runtime/cpu/worker.h"
#include "runtime/host/spares.h"

namespace vicinal::cpu {

class Executor {
 public:
  // `checked`: the module before any pass; must outlive it.
  Executor(std::shared_ptr<const CompiledKernel> compiled, const ir::Module& checked)
      : compiled_(std::move(compiled)), checked_(checked) {}

  const CompiledKernel& compiled() const { return *compiled_; }

  // Computes every row on so many threads, in an order within each that does not depend on them. The plan's
  // rows are tiles of queries, of the shape that the code was cut for at most. May be called by several
  // threads at once; allocates nothing once as many have run problems of as many inputs on as many threads.
  // Errors (internal): LLVM refuses code that NaN or Inf in the tensors made necessary.
  Result<void> run(const runtime::Problem& problem, const plan::TilePlan& plan, unsigned threads) const;

 private:
  using Team = std::vector<std::unique_ptr<Worker>>;

  std::shared_ptr<const CompiledKernel> compiled_;
  const ir::Module& checked_;
  mutable host::Spares<Team> teams_;
};

}  // namespace vicinal::cpu
