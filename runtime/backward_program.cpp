#include "runtime/backward_program.h"

#include <algorithm>
#include <future>

#include "runtime/tile_words.h"

namespace vicinal::runtime {

Result<std::shared_ptr<const BackwardProgram>> BackwardProgram::make(
    Engine& engine, const cuda::Context& context, const driver::Variant& variant,
    const emit::KernelOptions& options, const std::string& arch, bool deterministic) {
  const emit::Specialized differentiated = emit::specialize(driver::differentiated(variant));
  auto program = std::make_shared<BackwardProgram>();
  program->options_ = options;
  program->options_.kind = emit::KernelKind::portable;
  program->deterministic_ = deterministic;
  program->module_ = differentiated.declarations();
  std::future<Result<std::shared_ptr<const Program>>> before_output;
  if (program->module_.root(ir::Root::output).valid())
    before_output = std::async(std::launch::async, [&] {
      return Program::make(engine, context, driver::before_output(variant), {program->options_}, arch);
    });
  auto hopper = std::async(std::launch::async, [&] {
    return HopperBackwardProgram::make(engine, context, differentiated, program->options_, arch);
  });
  std::vector<std::future<Result<Step>>> steps;
  const auto start = [&](emit::BackwardStep step) {
    steps.push_back(std::async(std::launch::async, [&, step]() -> Result<Step> {
      emit::BackwardSource source = emit::emit_backward(differentiated, program->options_, step);
      VICINAL_TRY(const CompiledCubin cubin, compile_cubin(engine, source.kernel, arch));
      const std::string& binary = cubin.kernel.payload->binary;
      VICINAL_TRY(cuda::LoadedKernel loaded,
                  cuda::LoadedKernel::load(context, std::as_bytes(std::span(binary.data(), binary.size())),
                                           source.kernel.entry));
      return Step{std::move(source), std::move(loaded)};
    }));
  };
  for (const emit::BackwardStep step : emit::kBackwardSteps) start(step);
  start(emit::BackwardStep::tangents);
  // All are waited for before an error leaves: they refer to what is here.
  std::vector<Result<Step>> made;
  for (auto& step : steps) made.push_back(step.get());
  Result<HopperBackwardProgram::Made> on_hopper = hopper.get();
  if (before_output.valid()) {
    VICINAL_TRY(program->before_output_, before_output.get());
  }
  if (!on_hopper) return on_hopper.forward_error();
  program->hopper_ = std::move(on_hopper->program);
  program->path_reason_ = std::move(on_hopper->why);
  for (Result<Step>& step : made) {
    if (!step) return step.forward_error();
    program->steps_.push_back(*std::move(step));
  }
  program->tangents_ = std::move(program->steps_.back());
  program->steps_.pop_back();
  return std::shared_ptr<const BackwardProgram>(std::move(program));
}

BackwardProgram::Path BackwardProgram::path(const Problem& problem) const {
  if (!hopper_ || hopper_->shape(module_, problem)) return path();
  return {"cuda/portable", "dilations leave the copy engine too few tokens at a time"};
}

Result<BackwardLayout> BackwardProgram::layout(const Problem& problem) const {
  return backward_layout(problem, steps_[0].source.captured, has_output(), options_.dtype);
}

Result<std::size_t> BackwardProgram::workspace_bytes(const Problem& problem) const {
  VICINAL_TRY(const BackwardLayout sizes, layout(problem));
  const auto boxes = hopper_ ? hopper_->shape(module_, problem) : std::nullopt;
  if (!boxes) return sizes.bytes;
  VICINAL_TRY(const HopperBackwardLayout hopper, hopper_->layout(problem, *boxes));
  return sizes.bytes + hopper.bytes;
}

plan::TileShape BackwardProgram::shape(const Problem& problem) const {
  return shapes_.shape(module_, problem, emit::kBackwardTile, emit::kBackwardTile);
}

// What is learnable and read nowhere has the gradient 0, and no kernel writes it; sums in place start from 0.
Result<void> BackwardProgram::clear(const Problem& problem, const BoundDifferentials& wanted,
                                    cuda::StreamHandle stream) const {
  const auto clear_one = [&](bool param, std::uint32_t index,
                             const BoundDifferentials::Captured& target) -> Result<void> {
    for (const emit::CapturedSlot& slot : steps_[0].source.captured)
      if (slot.param == param && slot.index == index && !slot.in_place) return {};
    if (target.data == nullptr) return {};
    const auto count = static_cast<std::size_t>(elements_of(problem, {param, index, false}));
    const cuda::DriverApi& api = steps_[0].loaded.context().api();
    return cuda::check(api, api.memory_set, reinterpret_cast<cuda::DevicePointer>(target.data), 0,
                       count * size_of(target.dtype), stream);
  };
  for (std::uint32_t i = 0; i < wanted.inputs.size(); ++i)
    VICINAL_TRY_VOID(clear_one(false, i, wanted.inputs[i]));
  for (std::uint32_t i = 0; i < wanted.params.size(); ++i)
    VICINAL_TRY_VOID(clear_one(true, i, wanted.params[i]));
  return {};
}

Result<void> BackwardProgram::launch(const Problem& problem, const BackwardPlan* plan,
                                     const BoundOutputDifferentials& given, const BoundDifferentials& wanted,
                                     std::uint64_t workspace, cuda::StreamHandle stream) const {
  VICINAL_TRY(const BackwardLayout sizes, layout(problem));
  const plan::TileShape tile_shape = shape(problem);
  const BackwardTiles tiles = plan != nullptr ? plan->tiles : backward_tiles(problem, tile_shape);
  BackwardProblem of{problem, tile_shape, tiles, given, wanted, sizes, workspace, has_output()};
  VICINAL_TRY_VOID(check_backward(of, steps_[0].source.captured, options_.dtype));
  std::optional<plan::TileShape> boxes;
  HopperBackwardLayout hopper_sizes;
  if (hopper_ && problem.rows() != 0 && !hopper_backward_obstacle(of))
    boxes = hopper_->shape(module_, problem);
  if (boxes) {
    VICINAL_TRY(hopper_sizes, hopper_->layout(problem, *boxes));
  }
  const std::uint64_t hopper_workspace = workspace + sizes.bytes;
  if (boxes) of.only_if = hopper_workspace + hopper_sizes.poisoned;
  std::vector<std::optional<Launch>> launches;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    if (boxes && emit::kBackwardSteps[i] == emit::BackwardStep::rows) {
      launches.emplace_back();  // the Hopper kernels compute the rows' terms
      continue;
    }
    VICINAL_TRY(std::optional<Launch> prepared,
                prepare_backward(of, steps_[i].source, emit::kBackwardSteps[i], options_, module_));
    launches.push_back(std::move(prepared));
  }
  const cuda::ContextScope scope(steps_[0].loaded.context());
  VICINAL_TRY_VOID(clear(problem, wanted, stream));
  if (before_output_ && problem.rows() != 0) {
    const Problem before = problem_before_output(problem, sizes, workspace);
    VICINAL_TRY_VOID(
        before_output_->launch(before, tile_words(before, before_output_->shape(before)), stream));
  }
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const emit::BackwardStep step = emit::kBackwardSteps[i];
    if (boxes && step == emit::BackwardStep::rows) {
      VICINAL_TRY_VOID(
          hopper_->launch(of, {*boxes, hopper_sizes, hopper_workspace, deterministic_}, module_, stream));
      continue;
    }
    if (!launches[i]) continue;
    // Those that most often have nothing to do.
    if (boxes && (step == emit::BackwardStep::queries || step == emit::BackwardStep::keys)) {
      launches[i]->shape.grid.x = std::min(launches[i]->shape.grid.x, hopper_->most_blocks());
      launches[i]->shape.early = true;
    }
    VICINAL_TRY_VOID(cuda::launch(steps_[i].loaded, stream, launches[i]->shape, launches[i]->arguments));
  }
  return {};
}

Result<void> BackwardProgram::launch_tangents(const Problem& problem, const BackwardPlan* plan,
                                              const BoundDifferentials& given,
                                              const BoundOutputDifferentials& wanted,
                                              cuda::StreamHandle stream) const {
  VICINAL_TRY(const BackwardLayout sizes, layout(problem));
  const plan::TileShape tile_shape = shape(problem);
  const BackwardTiles tiles = plan != nullptr ? plan->tiles : backward_tiles(problem, tile_shape);
  const BackwardProblem of{problem, tile_shape, tiles, wanted, given, sizes, 0, false, "tangent"};
  VICINAL_TRY_VOID(check_backward(of, tangents_->source.captured, options_.dtype));
  VICINAL_TRY(const std::optional<Launch> prepared,
              prepare_backward(of, tangents_->source, emit::BackwardStep::tangents, options_, module_));
  if (!prepared) return {};
  const cuda::ContextScope scope(tangents_->loaded.context());
  return cuda::launch(tangents_->loaded, stream, prepared->shape, prepared->arguments);
}

}  // namespace vicinal::runtime
