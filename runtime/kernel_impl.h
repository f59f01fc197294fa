// What a Spec and a Kernel hold. Not installed; the command line reads it for what the public header does not
// say.
#pragma once

#include <vicinal/vicinal.h>

#include <future>
#include <mutex>

#include "compiler/driver/compile.h"
#include "runtime/backward_program.h"
#include "runtime/bound_call.h"
#include "runtime/cpu/executor.h"
#include "runtime/cuda_kernel.h"
#include "runtime/device_planner.h"
#include "runtime/host_gradients.h"
#include "runtime/kernel_plan.h"
#include "runtime/program.h"

namespace vicinal {

struct Spec::Impl {
  syntax::Program program;
  std::size_t block = 0;  // of program.files[0]
  std::vector<Message> messages;
  driver::Variant variant;  // with the params' defaults

  const ast::Attention& attention() const { return program.files[0].attentions[block]; }
};

struct Kernel::Impl {
  std::shared_ptr<const Spec::Impl> spec;
  CompileOptions options;
  driver::Variant variant;  // with the options' params
  emit::Uses used;
  CompileInfo info;
  // On a device. The fallback takes the tensors that the program cannot, and is compiled beside it.
  std::shared_ptr<const runtime::Program> program;
  std::shared_future<Result<std::shared_ptr<const runtime::Program>>> fallback;
  std::optional<runtime::DevicePlanner> planner;              // where the mask reads inputs
  std::shared_ptr<const runtime::BackwardProgram> gradients;  // if they were asked for
  // On the host; without generated code the interpreter computes.
  std::optional<cpu::Executor> executor;
  mutable runtime::PlanCache host_plans;
  mutable host::Spares<runtime::BoundCall> calls;  // as many as have been bound at a time
  mutable std::once_flag differentiate_once;
  mutable ir::Module with_partials;

  mutable std::once_flag host_gradients_once;
  mutable Result<std::unique_ptr<runtime::HostGradients>> compiled_gradients =
      std::unique_ptr<runtime::HostGradients>();

  // Generated code for gradients on the host, compiled when it is first asked for; an error says why the
  // interpreter computes them.
  const Result<std::unique_ptr<runtime::HostGradients>>& host_gradients() const;
  // With its derivatives, before the pipeline; made when it is first asked for.
  const ir::Module& differentiated() const;

  bool on_device() const { return program != nullptr; }
  const cuda::Context& context() const { return program->loaded.context(); }  // of a device

  Result<runtime::Problem> bind(const RunArguments& arguments) const;
  // The same for a run.
  Result<host::Spares<runtime::BoundCall>::Loan> bind_call(const RunArguments& arguments) const;
  plan::Masks masks() const;
  // What runs the problem on the device; waits for the fallback's compilation where that is needed first.
  Result<const runtime::Program*> program_for(const runtime::Problem& problem) const;
  // `program`: null on the host, as program_for says.
  plan::TileShape tile_shape(const runtime::Program* program, const runtime::Problem& problem) const;
  runtime::PlanCache& plans(const runtime::Program* program) const;
  // `program`: as program_for says.
  Result<void> run(const runtime::Program* program, const runtime::Problem& problem, const Plan::Impl& plan,
                   Stream stream) const;
  // On the device, of the inputs as they are when the stream gets there.
  Result<void> plan_there(Plan::Impl& plan, Stream stream) const;
  // On the host; waits for the stream where inputs are on a device.
  Result<void> plan_here(Plan::Impl& plan, Stream stream) const;
  Result<std::shared_ptr<Plan::Impl>> plan(runtime::Problem problem, Stream stream) const;
  // Whether the inputs still give this plan.
  Result<void> check(const runtime::Problem& problem, const Plan::Impl& plan, Stream stream) const;
};

namespace runtime {

// A spec from a program that has been loaded; `sink` has what loading found, and gets the rest.
Result<Spec> make_spec(syntax::Program program, const std::string& block, diagnostics::Sink& sink);

// Bindings of the block's params; unknown names and wrong kinds are errors (usage).
Result<check::Bindings> make_bindings(const ir::Module& module,
                                      const std::map<std::string, ParamValue>& params,
                                      const std::set<std::string>& dynamic);

}  // namespace runtime
}  // namespace vicinal
