#include "runtime/host_gradients.h"

#include <algorithm>

#include "runtime/binding/strides.h"
#include "runtime/host/elements.h"

namespace vicinal::runtime {
namespace {

// A row's tensor in C order, with memory of its own.
struct OwnRows {
  std::vector<std::byte> bytes;
  Strided tensor;

  OwnRows(const Problem& p, DType dtype, std::int64_t dim) {
    std::vector<std::int64_t> shape = {p.batch, p.heads};
    for (const GridAxis& a : p.q_axis) shape.push_back(a.local);
    shape.push_back(dim);
    const std::vector<std::int64_t> strides = c_order_strides(shape);
    bytes.resize(static_cast<std::size_t>(p.rows() * dim) * size_of(dtype));
    tensor = {bytes.data(), dtype, strides[0], strides[1], 1, {strides.begin() + 2, strides.end() - 1}};
  }
};

// The same numbers in another element type.
OwnRows converted(const Problem& p, const Strided& from, DType dtype, std::int64_t dim) {
  OwnRows rows(p, dtype, dim);
  const std::int64_t queries = p.local_queries();
  for (std::int64_t n = 0; n < p.rows(); ++n) {
    std::int64_t at = n / queries / p.heads * from.batch + n / queries % p.heads * from.head;
    std::int64_t token = n % queries;
    for (std::size_t i = p.q_axis.size(); i-- > 0; token /= p.q_axis[i].local)
      at += token % p.q_axis[i].local * from.axis[i];
    for (std::int64_t c = 0; c < dim; ++c)
      host::store_element(rows.bytes.data(), dtype, n * dim + c,
                          host::load_element(from.data, from.dtype, at + c * from.dim));
  }
  return rows;
}

bool wants_captured(const BoundDifferentials& wanted) {
  const auto given = [](const BoundDifferentials::Captured& c) { return c.data != nullptr; };
  return std::ranges::any_of(wanted.inputs, given) || std::ranges::any_of(wanted.params, given);
}

}  // namespace

Result<std::unique_ptr<HostGradients>> HostGradients::make(const cpu::CodeGeneratorApi& generator,
                                                           const driver::Variant& variant,
                                                           const cpu::Executor& forward,
                                                           const ir::Module& differentiated) {
  const emit::Specialized specialized = emit::specialize(driver::differentiated(variant));
  std::unique_ptr<HostGradients> made(new HostGradients(variant, forward));
  emit::CpuKernelOptions options = forward.compiled().kernel().options;
  const bool has_output = differentiated.root(ir::Root::output).valid();
  // The derivative of an output expression may be far larger than what it is taken at: a value in 16 bits
  // would not do.
  if (has_output) options.out_dtype = DType::f32;
  const auto compile = [&](emit::CpuKernel kernel) {
    bool known = false;
    return cpu::CompiledKernel::make(generator, std::move(kernel), known);
  };
  if (has_output) {
    VICINAL_TRY(auto before, compile(emit::cpu_kernel(driver::before_output(variant), options)));
    made->before_output_.emplace(std::move(before), variant.checked.module);
  }
  VICINAL_TRY(auto tensors, compile(emit::cpu_backward_kernel(specialized, options, false)));
  made->tensors_.emplace(std::move(tensors), differentiated);
  const auto learnable = [](const auto& x) { return x.learnable; };
  if (std::ranges::any_of(differentiated.inputs, learnable) ||
      std::ranges::any_of(differentiated.params, learnable)) {
    VICINAL_TRY(auto captured, compile(emit::cpu_backward_kernel(specialized, options, true)));
    made->captured_.emplace(std::move(captured), differentiated);
  }
  return made;
}

Result<std::shared_ptr<const Plan::Impl>> HostGradients::plan(const Problem& problem,
                                                              const cpu::CodeShape& shape, PlanCache& plans,
                                                              unsigned threads) const {
  const ir::Module& module = variant_.checked.module;
  std::vector<std::int64_t> key = plan_key(module, problem);
  if (auto known = plans.find(key)) return known;
  auto made = std::make_shared<Plan::Impl>();
  made->key = std::move(key);
  made->problem = problem;
  made->shape = plans.shape(module, problem, shape.tile_q, shape.tile_k);
  const emit::Specialized& specialized = variant_.specialized;
  const plan::Masks masks{&specialized.grid.module,
                          specialized.context ? &specialized.context->module : nullptr};
  VICINAL_TRY(made->tiles, plan::plan_tiles(masks, made->problem, made->shape, {.threads = threads}));
  if (!made->tiles->depends_on_data()) plans.add(made);
  return std::shared_ptr<const Plan::Impl>(std::move(made));
}

const cpu::BackwardExecutor& HostGradients::executor(const BoundDifferentials& wanted) const {
  return captured_ && wants_captured(wanted) ? *captured_ : *tensors_;
}

Result<void> HostGradients::run(const Problem& bound, bool computes_out,
                                const BoundOutputDifferentials& given, const BoundDifferentials& wanted,
                                unsigned threads) const {
  const cpu::BackwardExecutor& backward = executor(wanted);
  VICINAL_TRY_VOID(backward.compiled().check(bound));
  Problem problem = bound;
  const DType dtype = problem.q.dtype;
  std::optional<OwnRows> out, lse, d_out;
  const bool softmax = variant_.checked.module.normalize == ir::Normalize::softmax;
  if (before_output_ || (computes_out && softmax)) {
    const cpu::Executor& forward = before_output_ ? *before_output_ : forward_;
    out.emplace(problem, forward.compiled().kernel().options.output(), problem.value_dim);
    problem.out = out->tensor;
    if (softmax) {
      lse.emplace(problem, DType::f32, 1);
      problem.lse = lse->tensor;
    }
    VICINAL_TRY(const auto tiles, plan(problem, forward.compiled().code().shape, forward_plans_, threads));
    VICINAL_TRY_VOID(forward.run(problem, *tiles->tiles, threads));
  }
  BoundOutputDifferentials from = given;
  if (from.out.dtype != dtype) {
    d_out.emplace(converted(problem, given.out, dtype, problem.value_dim));
    from.out = d_out->tensor;
  }
  VICINAL_TRY(const auto tiles, plan(problem, backward.compiled().code().shape, plans_, threads));
  return backward.run({problem, *tiles->tiles, from, wanted}, threads);
}

}  // namespace vicinal::runtime
