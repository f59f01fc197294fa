// What a Spec and a Kernel hold. Not installed; the command line reads it for what the public header does not
// say.
#pragma once

#include <vicinal/vicinal.h>

#include "compiler/driver/compile.h"
#include "runtime/cuda_kernel.h"
#include "runtime/device_planner.h"
#include "runtime/kernel_plan.h"

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
  emit::KernelOptions kernel_options;
  emit::KernelSource source;
  std::optional<cuda::LoadedKernel> loaded;
  std::optional<runtime::DevicePlanner> planner;  // on a device, where the mask reads inputs

  mutable runtime::PlanCache plans;

  Result<runtime::Problem> bind(const RunArguments& arguments) const;
  plan::Masks masks() const;
  plan::TileShape tile_shape(const runtime::Problem& problem) const;
  // `tiles`: nothing for all in reach.
  Result<void> launch(const runtime::Problem& problem, const cuda::TileWords& tiles, Stream stream) const;
  Result<void> run(const runtime::Problem& problem, const Plan::Impl& plan, Stream stream) const;
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
