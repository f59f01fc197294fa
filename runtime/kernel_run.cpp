// What a kernel does with a problem: says whether it takes it, plans it, runs it.
#include <fmt/format.h>

#include <algorithm>

#include "runtime/cpu/interpreter.h"
#include "runtime/kernel_impl.h"

namespace vicinal {
namespace {

cuda::StreamHandle handle(Stream stream) {
  return static_cast<cuda::StreamHandle>(stream);
}

}  // namespace

Result<runtime::Problem> Kernel::Impl::bind(const RunArguments& arguments) const {
  return runtime::bind({variant.checked.module, variant.launch_checks, used.inputs, used.row_inputs,
                        used.extents, options.dtype, options.head_dim, options.value_dim},
                       arguments);
}

Result<host::Spares<runtime::BoundCall>::Loan> Kernel::Impl::bind_call(const RunArguments& arguments) const {
  auto call = calls.take();
  VICINAL_TRY_VOID(
      call->bind(variant.checked.module, arguments, [&](const RunArguments& a) { return bind(a); }));
  return call;
}

plan::Masks Kernel::Impl::masks() const {
  const emit::Specialized& specialized = variant.specialized;
  return {&specialized.grid.module, specialized.context ? &specialized.context->module : nullptr};
}

Result<const runtime::Program*> Kernel::Impl::program_for(const runtime::Problem& problem) const {
  if (!program || !program->obstacle(problem)) return program.get();
  const Result<std::shared_ptr<const runtime::Program>>& other = fallback.get();
  if (!other) return other.forward_error();
  return other->get();
}

plan::TileShape Kernel::Impl::tile_shape(const runtime::Program* on, const runtime::Problem& problem) const {
  if (on != nullptr) return on->shape(problem);
  const emit::KernelOptions tiles;
  if (!executor) return host_plans.shape(variant.checked.module, problem, tiles.tile_q, tiles.tile_k);
  const cpu::CodeShape& cut = executor->compiled().code().shape;
  return host_plans.shape(variant.checked.module, problem, cut.tile_q, cut.tile_k);
}

runtime::PlanCache& Kernel::Impl::plans(const runtime::Program* on) const {
  return on != nullptr ? on->plans : host_plans;
}

Result<Support> Kernel::supports(const RunArguments& arguments) const {
  VICINAL_TRY(const runtime::Problem problem, impl_->bind(arguments));
  Support support;
  support.supported = true;
  support.backend = impl_->info.backend;
  support.path = impl_->info.path;
  VICINAL_TRY(const runtime::Program* const program, impl_->program_for(problem));
  if (program == nullptr) {
    if (impl_->executor) VICINAL_TRY_VOID(impl_->executor->compiled().check(problem));
    support.reason = impl_->info.backend == Backend::interpreter ? "the interpreter was asked for"
                                                                 : impl_->info.path_reason;
    const auto& gradients = impl_->host_gradients();
    support.gradient_path = gradients ? "cpu/jit" : "interpreter";
    support.gradient_reason = gradients ? impl_->info.path_reason : gradients.error().message;
    return support;
  }
  VICINAL_TRY_VOID(program->check(problem));
  if (impl_->planner) {
    VICINAL_TRY(const runtime::PlannerLayout layout,
                impl_->planner->layout(problem, program->shape(problem)));
    support.workspace_bytes = layout.bytes;
  }
  if (impl_->gradients) {
    VICINAL_TRY(support.gradient_workspace_bytes, impl_->gradients->workspace_bytes(problem));
    auto [path, reason] = impl_->gradients->path(problem);
    support.gradient_path = std::move(path);
    support.gradient_reason = std::move(reason);
  }
  support.path = runtime::path_of(*program);
  support.reason = impl_->info.path_reason;
  if (const auto obstacle = impl_->program->obstacle(problem)) support.reason = *obstacle;
  return support;
}

Result<void> Kernel::Impl::run(const runtime::Program* runs, const runtime::Problem& problem,
                               const Plan::Impl& plan, Stream stream) const {
  if (problem.rows() == 0) return {};
  if (runs == nullptr) {
    VICINAL_TRY(const runtime::Engine* const engine, runtime::Engine::process());
    if (!executor) {
      cpu::Interpreter(variant.checked.module, problem).run(engine->threads(), &*plan.tiles);
      return {};
    }
    VICINAL_TRY_VOID(executor->compiled().check(problem));
    return executor->run(problem, *plan.tiles, engine->threads());
  }
  // A plan for tensors of another kind has other tiles.
  const cuda::TileWords tiles =
      plan.program == runs ? plan.words : runtime::tile_words(problem, runs->shape(problem));
  return runs->launch(problem, tiles, handle(stream));
}

Result<void> Kernel::run(const RunArguments& arguments, Stream stream) const {
  VICINAL_TRY(const auto call, impl_->bind_call(arguments));
  const runtime::Problem& problem = call->problem();
  VICINAL_TRY(const runtime::Program* const program, impl_->program_for(problem));
  if (const auto plan = impl_->plans(program).find(call->key()))
    return impl_->run(program, problem, *plan, stream);
  if (impl_->info.backend == Backend::cpu) {
    // A plan takes no device memory here and next to no time.
    VICINAL_TRY(const Plan made, prepare(arguments, stream));
    return impl_->run(program, problem, made.impl(), stream);
  }
  if (problem.rows() == 0) return {};
  if (program == nullptr) {
    VICINAL_TRY(const runtime::Engine* const engine, runtime::Engine::process());
    cpu::Interpreter(impl_->variant.checked.module, problem).run(engine->threads(), nullptr);
    return {};
  }
  const plan::TileShape shape = program->shape(problem);
  if (!impl_->planner || arguments.workspace.data == nullptr)
    return program->launch(problem, runtime::tile_words(problem, shape), handle(stream));

  VICINAL_TRY(const runtime::PlannerLayout layout, impl_->planner->layout(problem, shape));
  if (arguments.workspace.bytes < layout.bytes)
    return unexpected(ErrorKind::spec,
                      fmt::format("the workspace has {} bytes, and the plan of this problem takes {}",
                                  arguments.workspace.bytes, layout.bytes),
                      "allocate what supports() says, or leave the workspace out to visit all tiles");
  const auto memory = reinterpret_cast<std::uint64_t>(arguments.workspace.data);
  if (memory % 256 != 0)
    return unexpected(ErrorKind::spec, "the workspace is not aligned to 256 bytes",
                      "cudaMalloc and cuMemAlloc align to that");
  const cuda::TileWords words = runtime::planned_words(layout, memory, problem, shape);
  {
    const cuda::ContextScope scope(impl_->context());
    VICINAL_TRY_VOID(impl_->planner->enqueue(problem, layout, memory, words, handle(stream)));
  }
  return program->launch(problem, words, handle(stream));
}

Result<void> Kernel::run(const RunArguments& arguments, const Plan& plan, Stream stream) const {
  VICINAL_TRY(const auto call, impl_->bind_call(arguments));
  const runtime::Problem& problem = call->problem();
  if (plan.impl().kernel != impl_.get())
    return unexpected(ErrorKind::spec, "the plan was prepared by another kernel",
                      "call prepare() on the kernel that runs it");
  if (plan.impl().key != call->key())
    return unexpected(ErrorKind::spec, "the plan was prepared for other extents or params",
                      "call prepare() with the arguments of this run");
  VICINAL_TRY(const runtime::Engine* const engine, runtime::Engine::process());
  if (plan.depends_on_data() && engine->settings().check_plans.value == runtime::Switch::on)
    VICINAL_TRY_VOID(impl_->check(problem, plan.impl(), stream));
  if (problem.rows() == 0) return {};
  VICINAL_TRY(const runtime::Program* const program, impl_->program_for(problem));
  return impl_->run(program, problem, plan.impl(), stream);
}

Result<void> Kernel::Impl::plan_there(Plan::Impl& plan, Stream stream) const {
  VICINAL_TRY(plan.layout, planner->layout(plan.problem, plan.shape));
  plan.depends_on_data = true;
  plan.bytes = plan.layout->bytes;
  const cuda::ContextScope scope(context());
  plan.context = context();
  VICINAL_TRY(plan.workspace, cuda::DeviceBuffer::allocate(context().api(), plan.bytes));
  const cuda::DevicePointer memory = plan.workspace.address();
  plan.words = runtime::planned_words(*plan.layout, memory, plan.problem, plan.shape);
  return planner->enqueue(plan.problem, *plan.layout, memory, plan.words, handle(stream));
}

Result<void> Kernel::Impl::plan_here(Plan::Impl& plan, Stream stream) const {
  runtime::HostInputs inputs;
  if (on_device()) {
    VICINAL_TRY(inputs, runtime::download_inputs(context(), handle(stream), plan::inputs_read(masks()),
                                                 plan.problem));
  }
  VICINAL_TRY(const runtime::Engine* const engine, runtime::Engine::process());
  Result<plan::TilePlan> tiles =
      plan::plan_tiles(masks(), plan.problem, plan.shape, {.threads = engine->threads()});
  if (!tiles) return tiles.forward_error();
  plan.tiles.emplace(*std::move(tiles));
  plan.depends_on_data = plan.tiles->depends_on_data();
  plan.bytes = plan.tiles->bytes();
  if (!on_device()) return {};
  VICINAL_TRY_VOID(runtime::upload(plan, context()));
  if (!gradients) return {};
  const plan::TileShape shape = gradients->shape(plan.problem);
  VICINAL_TRY(plan.backward, runtime::plan_backward(masks(), plan.problem, shape, engine->threads()));
  if (!plan.backward) return {};
  const cuda::ContextScope scope(context());
  plan.context = context();
  plan.bytes += plan.backward->bytes();
  return runtime::upload_lists(*plan.backward, plan.problem, shape, context());
}

Result<std::shared_ptr<Plan::Impl>> Kernel::Impl::plan(runtime::Problem problem, Stream stream) const {
  auto plan = std::make_shared<Plan::Impl>();
  plan->kernel = this;
  plan->key = runtime::plan_key(variant.checked.module, problem);
  VICINAL_TRY(const runtime::Program* const runs, program_for(problem));
  plan->program = runs;
  plan->shape = tile_shape(runs, problem);
  plan->problem = std::move(problem);
  VICINAL_TRY_VOID(planner ? plan_there(*plan, stream) : plan_here(*plan, stream));
  return plan;
}

Result<void> Kernel::Impl::check(const runtime::Problem& problem, const Plan::Impl& plan,
                                 Stream stream) const {
  VICINAL_TRY(const std::shared_ptr<const Plan::Impl> fresh, this->plan(problem, stream));
  VICINAL_TRY(const auto now, runtime::list_rows(*fresh, handle(stream)));
  VICINAL_TRY(const auto then, runtime::list_rows(plan, handle(stream)));
  if (now == then) return {};
  const auto row = std::ranges::mismatch(now, then).in1 - now.begin();
  return unexpected(ErrorKind::spec,
                    fmt::format("the plan was made from other contents of the inputs: row {} of its list "
                                "is no longer what they ask for",
                                row),
                    "call prepare() again when inputs that the mask reads change");
}

Result<Plan> Kernel::prepare(const RunArguments& arguments, Stream stream) const {
  VICINAL_TRY(runtime::Problem problem, impl_->bind(arguments));
  VICINAL_TRY(std::shared_ptr<Plan::Impl> plan, impl_->plan(std::move(problem), stream));
  if (!plan->depends_on_data) impl_->plans(plan->program).add(plan);
  return Plan(std::move(plan));
}

bool Plan::depends_on_data() const {
  return impl_->depends_on_data;
}
std::size_t Plan::bytes() const {
  return impl_->bytes;
}

}  // namespace vicinal
