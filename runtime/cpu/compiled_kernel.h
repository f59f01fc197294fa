// A kernel for the CPU: generated code, and what feeds it. Code is kept for the process, by what it was
// generated from; nothing of it is written to disk.
#pragma once

#include <memory>
#include <mutex>

#include "runtime/cpu/generated_code.h"
#include "runtime/plan/tile_plan.h"

namespace vicinal::cpu {

class CompiledKernel {
 public:
  // Compiles, or finds what has been compiled before and says so in `known`. Errors (internal): LLVM refuses.
  static Result<std::shared_ptr<const CompiledKernel>> make(const CodeGeneratorApi& generator,
                                                            emit::CpuKernel kernel, bool& known);
  CompiledKernel(const CodeGeneratorApi& generator, emit::CpuKernel kernel, std::string digest);
  ~CompiledKernel();

  const emit::CpuKernel& kernel() const { return kernel_; }
  const Code& code() const { return code_; }
  const std::string& digest() const { return digest_; }  // of what it was generated from

  // Errors (spec): inputs of other element types than it was compiled for.
  Result<void> check(const runtime::Problem& problem) const;
  // Computes every row on so many threads, in an order within each that does not depend on them. The plan's
  // rows are tiles of queries, of the shape that the code was cut for at most. `checked`: the module before
  // any pass.
  // Errors (internal): LLVM refuses code that NaN or Inf in the tensors made necessary.
  Result<void> run(const ir::Module& checked, const runtime::Problem& problem, const plan::TilePlan& plan,
                   unsigned threads) const;

 private:
  struct Worker;
  // Compiled when it is first needed, since few problems do; null where LLVM refuses.
  const Code* exact_code() const;
  std::unique_ptr<Worker> take_worker() const;
  void give_back(std::unique_ptr<Worker> worker) const;

  const CodeGeneratorApi& generator_;
  emit::CpuKernel kernel_;
  std::string digest_;
  Code code_;
  mutable std::once_flag exact_once_;
  mutable Code exact_;
  mutable std::mutex lock_;
  mutable std::vector<std::unique_ptr<Worker>> idle_;  // kept from run to run with their memory
};

}  // namespace vicinal::cpu
