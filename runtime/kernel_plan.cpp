#include "runtime/kernel_plan.h"

#include <algorithm>
#include <bit>
#include <span>

namespace vicinal {

Plan::Impl::~Impl() {
  if (!context) return;
  const cuda::ContextScope scope(*context);
  row_starts = {};
  runs = {};
}

namespace runtime {

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
  if (problem.q_axis.size() == 1) return {{static_cast<int>(queries)}, {static_cast<int>(keys)}};
  return plan::search_shapes(problem, queries, keys, plan::kMaskWeight, 1)[0].shape;
}

Result<void> upload(Plan::Impl& plan, const cuda::Context& context) {
  if (!plan.tiles->listed()) return {};
  const cuda::ContextScope scope(context);
  plan.context = context;
  VICINAL_TRY(plan.row_starts,
              cuda::DeviceBuffer::copy_of(context.api(), std::as_bytes(std::span(plan.tiles->row_starts()))));
  VICINAL_TRY(plan.runs,
              cuda::DeviceBuffer::copy_of(context.api(), std::as_bytes(std::span(plan.tiles->runs()))));
  return {};
}

Result<HostInputs> download_inputs(const cuda::Context& context, cuda::StreamHandle stream,
                                   const std::vector<bool>& wanted, Problem& problem) {
  const cuda::ContextScope scope(context);
  const cuda::DriverApi& api = context.api();
  HostInputs host;
  host.bytes.resize(problem.inputs.size());
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
  }
  VICINAL_TRY_VOID(cuda::check(api, api.stream_synchronize, stream));
  return host;
}

cuda::TileWords tile_words(const Problem& problem, const plan::TileShape& shape, const Plan::Impl* plan) {
  cuda::TileWords words;
  words.q.assign(shape.q.begin(), shape.q.end());
  words.k.assign(shape.k.begin(), shape.k.end());
  words.rows = plan::TileGrid(problem, shape).rows();
  if (plan == nullptr || !plan->tiles->listed()) return words;
  const plan::Slices& slices = plan->tiles->slices();
  words.row_start = plan->row_starts.address();
  words.runs = plan->runs.address();
  words.slice_batch = slices.batches == 1 ? 0 : slices.heads;
  words.slice_head = slices.heads == 1 ? 0 : 1;
  words.heads_per_slice = slices.heads_per_slice;
  return words;
}

plan::TileShape PlanCache::shape(const ir::Module& module, const Problem& problem, std::int64_t queries,
                                 std::int64_t keys) {
  if (problem.q_axis.size() == 1) return choose_shape(problem, queries, keys);
  const std::vector<std::int64_t> key = plan_key(module, problem);
  const std::lock_guard guard(lock_);
  if (const auto known = shapes_.find(key); known != shapes_.end()) return known->second;
  if (shapes_.size() >= kMost) shapes_.clear();
  return shapes_[key] = choose_shape(problem, queries, keys);
}

std::shared_ptr<const Plan::Impl> PlanCache::find(const std::vector<std::int64_t>& key) const {
  const std::lock_guard guard(lock_);
  const auto known = plans_.find(key);
  return known == plans_.end() ? nullptr : known->second;
}

void PlanCache::add(std::shared_ptr<const Plan::Impl> plan) {
  const std::lock_guard guard(lock_);
  if (plans_.size() >= kMost) plans_.clear();
  plans_[plan->key] = std::move(plan);
}

}  // namespace runtime
}  // namespace vicinal
