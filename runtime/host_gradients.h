// Generated code for the gradients of a variant on the CPU, and the runs that they start from.
#pragma once

#include "compiler/driver/compile.h"
#include "runtime/cpu/backward_executor.h"
#include "runtime/cpu/executor.h"
#include "runtime/engine.h"
#include "runtime/kernel_plan.h"

namespace vicinal::runtime {

class HostGradients {
 public:
  // `forward`: runs the forward pass, whose options it has. `differentiated`: before any pass, with its
  // partials. All must outlive it. Errors (internal): LLVM refuses.
  static Result<std::unique_ptr<HostGradients>> make(const cpu::CodeGeneratorApi& generator,
                                                     const driver::Variant& variant,
                                                     const cpu::Executor& forward,
                                                     const ir::Module& differentiated);

  // `problem`: with the out and lse of a run, unless `computes_out`.
  Result<void> run(const Problem& problem, bool computes_out, const BoundOutputDifferentials& given,
                   const BoundDifferentials& wanted, unsigned threads) const;

 private:
  HostGradients(const driver::Variant& variant, const cpu::Executor& forward)
      : variant_(variant), forward_(forward) {}
  Result<std::shared_ptr<const Plan::Impl>> plan(const Problem& problem, const cpu::CodeShape& shape,
                                                 PlanCache& plans, unsigned threads) const;
  const cpu::BackwardExecutor& executor(const BoundDifferentials& wanted) const;

  const driver::Variant& variant_;
  const cpu::Executor& forward_;
  std::optional<cpu::Executor> before_output_;     // where there is an output expression: the run without it
  std::optional<cpu::BackwardExecutor> tensors_;   // of Q, K and V alone
  std::optional<cpu::BackwardExecutor> captured_;  // of what is learnable too, where there is something
  mutable PlanCache forward_plans_, plans_;
};

}  // namespace vicinal::runtime
