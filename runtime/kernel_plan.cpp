#include "runtime/kernel_plan.h"

#include <algorithm>
#include <bit>
#include <span>

namespace vicinal {

Plan::Impl::~Impl() {
  if (!context) return;
  const cuda::ContextScope scope(*context);
  row_runs = {};
  runs = {};
  workspace = {};
  backward.reset();
}

namespace runtime {
namespace {

constexpr std::size_t kMostRemembered = 64;  // problems of other extents

}  // namespace

std::vector<std::int64_t> plan_key(const ir::Module& module, const Problem& p) {
  std::vector<std::int64_t> key = {p.batch, p.heads, p.kv_heads, p.head_dim, p.tokens, p.keys, p.context};
  for (const auto* axes : {&p.q_axis, &p.k_axis})
    for (const GridAxis& a : *axes) key.insert(key.end(), {a.extent, a.local, a.origin});
  for (const Problem::AxisShape& a : p.axes)
    key.insert(key.end(), {a.window, a.dilation, a.stride, a.causal});
  for (std::size_t i = 0; i < p.params.size(); ++i) {
    const ir::Value v = p.params[i];
    switch (module.params[i].type) {
      case ir::Type::integer: key.push_back(v.i); break;
      case ir::Type::real: key.push_back(std::bit_cast<std::int64_t>(v.f)); break;
      case ir::Type::boolean: key.push_back(v.b); break;
    }
  }
  key.insert(key.end(), p.extents.begin(), p.extents.end());
  return key;
}

plan::TileShape choose_shape(const Problem& problem, std::int64_t queries, std::int64_t keys) {
  return *find_shape(problem, queries, keys, {});
}

std::optional<plan::TileShape> find_shape(const Problem& problem, std::int64_t queries, std::int64_t keys,
                                          const plan::ShapeRules& rules) {
  if (problem.q_axis.size() == 1) {
    const plan::TileShape shape{{static_cast<int>(queries)}, {static_cast<int>(keys)}};
    return rules.factor && !rules.factor(shape) ? std::nullopt : std::optional(shape);
  }
  const std::vector<plan::ShapeChoice> choices = plan::search_shapes(problem, queries, keys, 1, rules);
  return choices.empty() ? std::nullopt : std::optional(choices[0].shape);
}

Result<void> upload(Plan::Impl& plan, const cuda::Context& context) {
  plan.words = tile_words(plan.problem, plan.shape);
  if (!plan.tiles->listed()) return {};
  const cuda::ContextScope scope(context);
  plan.context = context;
  const std::vector<RowRuns> rows = row_runs(*plan.tiles);
  VICINAL_TRY(plan.row_runs, cuda::DeviceBuffer::copy_of(context.api(), std::as_bytes(std::span(rows))));
  VICINAL_TRY(plan.runs,
              cuda::DeviceBuffer::copy_of(context.api(), std::as_bytes(std::span(plan.tiles->runs()))));
  plan.words = tile_words(plan.problem, plan.shape, plan.tiles->slices(), plan.row_runs.address(),
                          plan.runs.address());
  return {};
}

Result<HostInputs> download_inputs(const cuda::Context& context, cuda::StreamHandle stream,
                                   const std::vector<bool>& wanted, Problem& problem) {
  const cuda::ContextScope scope(context);
  const cuda::DriverApi& api = context.api();
  HostInputs host;
  host.bytes.resize(problem.inputs.size());
  bool copied = false;
  for (std::size_t i = 0; i < problem.inputs.size(); ++i) {
    CapturedInput& x = problem.inputs[i];
    if (!wanted[i] || x.data == nullptr || std::ranges::find(x.extents, 0) != x.extents.end()) continue;
    std::int64_t lowest = 0, highest = 0;  // offsets of elements
    for (std::size_t d = 0; d < x.extents.size(); ++d) {
      const std::int64_t reach = (x.extents[d] - 1) * x.strides[d];
      (reach < 0 ? lowest : highest) += reach;
    }
    const auto size = static_cast<std::int64_t>(size_of(x.dtype));
    host.bytes[i].resize(static_cast<std::size_t>((highest - lowest + 1) * size));
    const auto from = reinterpret_cast<std::uint64_t>(x.data) + static_cast<std::uint64_t>(lowest * size);
    VICINAL_TRY_VOID(
        cuda::check(api, api.copy_to_host, host.bytes[i].data(), from, host.bytes[i].size(), stream));
    x.data = host.bytes[i].data() - lowest * size;
    copied = true;
  }
  if (copied) VICINAL_TRY_VOID(cuda::check(api, api.stream_synchronize, stream));
  return host;
}

Result<std::vector<std::vector<plan::Run>>> list_rows(const Plan::Impl& plan, cuda::StreamHandle stream) {
  std::vector<RowRuns> rows;
  std::vector<plan::Run> runs;
  if (plan.tiles) {
    rows = row_runs(*plan.tiles);
    runs = plan.tiles->runs();
  } else {
    const cuda::ContextScope scope(*plan.context);
    const cuda::DriverApi& api = plan.context->api();
    rows.resize(static_cast<std::size_t>(plan.layout->rows));
    runs.resize(rows.size() * static_cast<std::size_t>(plan.layout->run_capacity));
    const auto read = [&](auto& into, cuda::DevicePointer from) {
      return cuda::check(api, api.copy_to_host, into.data(), from, into.size() * sizeof(into[0]), stream);
    };
    VICINAL_TRY_VOID(read(rows, plan.words.row_runs));
    VICINAL_TRY_VOID(read(runs, plan.words.runs));
    VICINAL_TRY_VOID(cuda::check(api, api.stream_synchronize, stream));
  }
  std::vector<std::vector<plan::Run>> result;
  for (const RowRuns& row : rows) result.emplace_back(runs.begin() + row.first, runs.begin() + row.last);
  return result;
}

std::optional<plan::TileShape> ShapeCache::find(const ir::Module& module, const Problem& problem,
                                                const Search& search) {
  const std::vector<std::int64_t> key = plan_key(module, problem);
  const std::lock_guard guard(lock_);
  if (const auto known = shapes_.find(key); known != shapes_.end()) return known->second;
  if (shapes_.size() >= kMostRemembered) shapes_.clear();
  return shapes_[key] = search();
}

std::optional<plan::TileShape> PlanCache::find_shape(const ir::Module& module, const Problem& problem,
                                                     std::int64_t queries, std::int64_t keys,
                                                     const plan::ShapeRules& rules) {
  const auto search = [&] { return runtime::find_shape(problem, queries, keys, rules); };
  return problem.q_axis.size() == 1 ? search() : shapes_.find(module, problem, search);
}

std::shared_ptr<const Plan::Impl> PlanCache::find(const std::vector<std::int64_t>& key) const {
  const std::lock_guard guard(lock_);
  const auto known = plans_.find(key);
  return known == plans_.end() ? nullptr : known->second;
}

void PlanCache::add(std::shared_ptr<const Plan::Impl> plan) {
  const std::lock_guard guard(lock_);
  if (plans_.size() >= kMostRemembered) plans_.clear();
  plans_[plan->key] = std::move(plan);
}

}  // namespace runtime
}  // namespace vicinal
