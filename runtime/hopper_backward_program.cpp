#include "runtime/hopper_backward_program.h"

#include <algorithm>
#include <future>

#include "runtime/cuda/device_info.h"
#include "runtime/program.h"

namespace vicinal::runtime {
namespace {

// What it would be left to is so slow that spilled registers do not matter before there are very many.
constexpr int kMostSpilledBytes = 512;

}  // namespace

Result<HopperBackwardProgram::Made> HopperBackwardProgram::make(Engine& engine, const cuda::Context& context,
                                                                const emit::Specialized& differentiated,
                                                                const emit::KernelOptions& options,
                                                                const std::string& arch) {
  VICINAL_TRY(const cuda::DeviceInfo device, cuda::device_info(context.api(), context.device()));
  if (device.capability() != 90) return Made{nullptr, "it needs a device of compute capability 9.0"};
  const emit::HopperBackwardChoice choice = emit::choose_hopper_backward(differentiated, options);
  if (!choice.schedule) return Made{nullptr, choice.why};
  auto program = std::make_shared<HopperBackwardProgram>();
  program->options_ = options;
  program->schedule_ = *choice.schedule;
  program->multiprocessors_ = device.multiprocessors;
  struct Compiled {
    Step step;
    std::string log;
  };
  std::vector<std::future<Result<Compiled>>> compiled;
  for (const emit::HopperBackwardStep step : emit::kHopperBackwardSteps)
    compiled.push_back(std::async(std::launch::async, [&, step]() -> Result<Compiled> {
      emit::KernelSource source = emit::emit_hopper_backward(differentiated, options, *choice.schedule, step);
      VICINAL_TRY(const CompiledCubin cubin, compile_cubin(engine, source, arch));
      const std::string& binary = cubin.kernel.payload->binary;
      VICINAL_TRY(cuda::LoadedKernel loaded,
                  cuda::LoadedKernel::load(context, std::as_bytes(std::span(binary.data(), binary.size())),
                                           source.entry, source.shared_bytes));
      return Compiled{{std::move(source), std::move(loaded)}, cubin.kernel.payload->log};
    }));
  std::future<Result<DevicePlanner>> planner;
  if (choice.schedule->planned)
    planner = std::async(std::launch::async, [&] {
      return DevicePlanner::make(engine, context, differentiated, options, arch, emit::TileList::pairs);
    });
  // All are waited for before an error leaves: they refer to what is here.
  std::vector<Result<Compiled>> made;
  for (auto& step : compiled) made.push_back(step.get());
  if (planner.valid()) {
    VICINAL_TRY(program->planner_, planner.get());
  }
  for (Result<Compiled>& step : made) {
    if (!step) return step.forward_error();
    if (auto wrong = defect(step->log, step->step.loaded.attributes(), kMostSpilledBytes))
      return Made{nullptr, *wrong};
    program->steps_.push_back(std::move(step->step));
  }
  return Made{std::move(program), {}};
}

Result<void> HopperBackwardProgram::launch(const BackwardProblem& of, const HopperBackwardLaunch& how,
                                           const ir::Module& module, cuda::StreamHandle stream) const {
  const cuda::DriverApi& api = steps_[0].loaded.context().api();
  VICINAL_TRY_VOID(cuda::check(api, api.memory_set, how.workspace, 0, how.layout.cleared, stream));
  if (planner_)
    VICINAL_TRY_VOID(planner_->enqueue(of.problem, *how.layout.plan, how.workspace + how.layout.pairs,
                                       how.tiles(of.problem), stream));
  for (const emit::HopperBackwardStep step : emit::kHopperBackwardSteps) {
    const bool keys = step == emit::HopperBackwardStep::keys;
    if (step == emit::HopperBackwardStep::queries && of.inputs.q.data == nullptr) continue;
    const Step& own = steps_[static_cast<std::size_t>(step)];
    VICINAL_TRY(Launch launch, prepare_hopper_backward(api, of, how, own.source, step, options_, module));
    if (launch.shape.grid.x == 0) continue;
    launch.shape.early = step != emit::HopperBackwardStep::rows;
    launch.shape.grid.x =
        std::min(launch.shape.grid.x, keys ? static_cast<unsigned>(multiprocessors_) : most_blocks());
    VICINAL_TRY_VOID(cuda::launch(own.loaded, stream, launch.shape, launch.arguments));
  }
  return {};
}

}  // namespace vicinal::runtime
