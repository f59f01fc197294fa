// Generated code of a kernel for the CPU, kept for the process by what it was generated from; nothing of it
// is written to disk.
#pragma once

#include <memory>
#include <mutex>

#include "runtime/binding/problem.h"
#include "runtime/cpu/generated_code.h"

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
  // CpuKernelOptions::exact. Compiled when it is first needed, since few problems do; null where LLVM
  // refuses.
  const Code* exact_code() const;
  const std::string& digest() const { return digest_; }  // of what it was generated from

  // Errors (spec): inputs of other element types than it was compiled for.
  Result<void> check(const runtime::Problem& problem) const;

 private:
  const CodeGeneratorApi& generator_;
  emit::CpuKernel kernel_;
  std::string digest_;
  Code code_;
  mutable std::once_flag exact_once_;
  mutable Code exact_;
};

}  // namespace vicinal::cpu
