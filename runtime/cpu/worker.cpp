#include "runtime/cpu/worker.h"

#include <bit>
#include <cstring>
#include <new>

#include "runtime/cpu/tile_tokens.h"

namespace vicinal::cpu {
namespace {

using runtime::Problem;

std::int32_t position_of(const std::vector<runtime::GridAxis>& axes, const std::int32_t* token) {
  std::int64_t at = 0;
  for (std::size_t i = 0; i < axes.size(); ++i) at = at * axes[i].extent + token[i];
  return static_cast<std::int32_t>(at);
}

}  // namespace

void Worker::FreeAligned::operator()(float* p) const {
  ::operator delete (p, std::align_val_t{64});
}

Worker::Worker(const CompiledKernel& compiled, const ir::Module& checked)
    : compiled_(compiled),
      kernel_(compiled.kernel()),
      code_(compiled.code()),
      layout_{kernel_.declarations().axes.size()},
      windowed_(kernel_.windowed()),
      workspace_(
          static_cast<float*>(::operator new (code_.shape.workspace * sizeof(float), std::align_val_t{64}))),
      uniforms_(kernel_.uniforms.size() + 1),
      query_rows_(3 * queries()),
      query_places_(layout_.query_arrays() * queries()) {
  whole_rows_ = kernel_.options.head_dim % 16 == 0;
  // Lanes that hold no query compute with what is there.
  std::memset(workspace_.get(), 0, code_.shape.workspace * sizeof(float));
  for (KeySlot& slot : slots_) {
    slot.rows.resize(2 * keys());
    slot.places.resize(layout_.key_arrays() * keys());
    slot.sum_rows.resize(keys() + kSpareRows);
  }
  if (kernel_.has_sink) sink_.emplace(checked, problem_, checked.root(ir::Root::sink), Arithmetic::wide);
  for (const emit::CpuUniform& u : kernel_.uniforms)
    expressions_.emplace_back(kernel_.keys(u.context).form.module, problem_, u.node,
                              u.exact ? Arithmetic::exact : Arithmetic::wide);
  // A later run must find all memory here, whichever tasks this worker got before.
  scratch_.reserve(std::max({checked.size(), kernel_.grid.form.module.size(),
                             kernel_.context ? kernel_.context->form.module.size() : 0}));
  for (std::vector<Stretch>* const box : {&row_.tokens, &box_, &line_heads_}) box->reserve(plan::kMaxRank);
  row_.reach.reserve(plan::kMaxRank);
}

void Worker::start(const Problem& problem, const plan::TilePlan& plan) {
  problem_ = problem;
  plan_ = &plan;
  batch_ = head_ = -1;
  contaminated_ = false;
  inputs_.clear();
  for (const runtime::CapturedInput& x : problem_.inputs) {
    static constexpr double zero = 0;
    CodeInput input{&zero, {}, {}};
    if (!left_out(x)) {
      input.data = x.data;
      std::copy(x.extents.begin(), x.extents.end(), input.extent);
      std::copy(x.strides.begin(), x.strides.end(), input.stride);
    }
    inputs_.push_back(input);
  }
}

void Worker::task(std::int64_t batch, std::int64_t head, std::int64_t number) {
  const plan::TileGrid& grid = plan_->grid();
  grid.row(number, row_);
  for (const Stretch& s : row_.tokens)
    if (s.count == 0) return;
  if (batch != batch_ || head != head_) start_slice(batch, head);
  fill_queries(grid);
  if (compute(code_, number) == 0) return;
  if (const Code* const exact = compiled_.exact_code())
    compute(*exact, number);
  else
    contaminated_ = true;
}

void Worker::start_slice(std::int64_t b, std::int64_t h) {
  batch_ = b;
  head_ = h;
  kv_head_ = h / (problem_.heads / problem_.kv_heads);
  Place place;
  place.b = b;
  place.h = h;
  place.kv_h = kv_head_;
  const auto value_of = [&](const Expression& expression) {
    expression.start_row(place, scratch_);
    return expression.at(place, scratch_);
  };
  const auto as_float = [](ir::Value value) {
    return std::bit_cast<std::uint32_t>(static_cast<float>(value.f));
  };
  if (sink_) uniforms_.back() = as_float(value_of(*sink_));
  for (std::size_t i = 0; i < expressions_.size(); ++i) {
    const emit::CpuUniform& u = kernel_.uniforms[i];
    const ir::Value value = value_of(expressions_[i]);
    switch (kernel_.keys(u.context).form.module[u.node].type) {
      case ir::Type::real: uniforms_[i] = as_float(value); break;
      case ir::Type::integer: uniforms_[i] = static_cast<std::uint32_t>(value.i); break;
      case ir::Type::boolean: uniforms_[i] = std::uint32_t{value.b}; break;
    }
  }
}

void Worker::fill_queries(const plan::TileGrid& grid) {
  const Problem& p = problem_;
  const std::size_t stride = queries();
  const auto place = [&](std::size_t array, std::size_t n) -> std::int32_t& {
    return query_places_[array * stride + n];
  };
  const std::int32_t shift =
      kernel_.declarations().align_end ? static_cast<std::int32_t>(p.keys - p.tokens) : 0;
  each_token(row_.tokens, grid, [&](std::int64_t number, const std::int32_t* token) {
    const auto n = static_cast<std::size_t>(number);
    query_rows_[n] = offset_of(p.q, p.q_axis, token);
    query_rows_[stride + n] = offset_of(p.out, p.q_axis, token);
    if (p.lse.data != nullptr) query_rows_[2 * stride + n] = offset_of(p.lse, p.q_axis, token);
    const std::int32_t index = position_of(p.q_axis, token);
    place(PlaceLayout::kPosition, n) = index + shift;
    place(PlaceLayout::kIndex, n) = index;
    for (std::size_t i = 0; i < layout_.axes; ++i) {
      place(layout_.query_coordinate(i), n) = token[i];
      if (!kernel_.windowed(i)) continue;
      const KeyRange range = neighborhood(grid.axis(i), token[i]);
      place(layout_.window_begin(i), n) = range.begin;
      place(layout_.window_size(i), n) = range.end - range.begin;
    }
  });
  const auto count = static_cast<std::size_t>(tokens_of(row_.tokens));
  const auto repeat = [&](auto* array) { std::fill(array + count, array + stride, array[0]); };
  for (std::size_t i = 0; i < 3; ++i) repeat(query_rows_.data() + i * stride);
  for (std::size_t i = 0; i < layout_.query_arrays(); ++i) repeat(query_places_.data() + i * stride);

  tile_.q = slice_of(p.q, batch_, head_);
  tile_.q_dim = p.q.dim;
  tile_.q_row = query_rows_.data();
  tile_.out = const_cast<void*>(slice_of(p.out, batch_, head_));
  tile_.out_dim = p.out.dim;
  tile_.out_row = query_rows_.data() + stride;
  tile_.lse = static_cast<float*>(const_cast<void*>(slice_of(p.lse, batch_, head_)));
  tile_.lse_row = query_rows_.data() + 2 * stride;
  tile_.count = static_cast<std::int64_t>(count);
  tile_.uniforms = uniforms_.data();
  tile_.inputs = inputs_.data();
  tile_.places = query_places_.data();
  tile_.workspace = workspace_.get();
}

// Keys that follow each other at one distance, or a box.
void Worker::fill_keys(KeySlot& slot, const plan::TileGrid& grid, std::int64_t number, bool full) {
  const Problem& p = problem_;
  KeyTile& t = slot.tile;
  const bool context = grid.is_context(row_, number);
  const runtime::Strided &k = context ? p.context_k : p.k, &v = context ? p.context_v : p.v;
  grid.tile(row_, number, box_);
  t.k = slice_of(k, batch_, kv_head_);
  t.v = slice_of(v, batch_, kv_head_);
  t.k_dim = k.dim;
  t.v_dim = v.dim;
  t.count = tokens_of(box_);
  t.k_row = slot.rows.data();
  t.v_row = slot.rows.data() + keys();
  t.places = slot.places.data();
  t.direct = 0;
  const bool masked = context ? kernel_.context->has_mask : kernel_.grid.has_mask || windowed_;
  t.kind = (context ? kFullContext : kFullTile) + (masked && !full ? 1 : 0);
  if (sums_ != nullptr) fill_sum_rows(slot, grid, context);
  if (context || grid.rank() == 1) {
    const int dilation = context ? 1 : grid.axis(0).dilation;
    const std::int64_t local = box_[0].first - (context ? 0 : p.k_axis[0].origin);
    t.first = box_[0].first;
    t.step = dilation;
    t.first_in_group = box_[0].first / dilation;
    fill_stretch(slot, k, v, local, dilation);
    return;
  }
  fill_box(slot, grid, k, v);
}

// Where the gradients of the tile's keys are added up. After them comes the row that nobody reads.
void Worker::fill_sum_rows(KeySlot& slot, const plan::TileGrid& grid, bool context) {
  const std::int64_t keys = problem_.local_keys();
  std::size_t end = 0;
  const auto add = [&](std::int64_t row) {
    sums_->touch(row);
    slot.sum_rows[end++] = row;
  };
  if (context)
    for (std::int32_t i = 0; i < box_[0].count; ++i) add(keys + box_[0].first + i);
  else
    each_token(box_, grid,
               [&](std::int64_t, const std::int32_t* token) { add(local_row(problem_.k_axis, token)); });
  std::fill_n(slot.sum_rows.begin() + static_cast<std::ptrdiff_t>(end), kSpareRows, sums_->rows());
  slot.tile.sum_row = slot.sum_rows.data();
}

// Along the last axis neighbouring keys are one step apart in everything.
void Worker::fill_box(KeySlot& slot, const plan::TileGrid& grid, const runtime::Strided& k,
                      const runtime::Strided& v) {
  const Problem& p = problem_;
  const std::size_t stride = keys(), last = box_.size() - 1;
  const auto step = static_cast<std::int32_t>(grid.axis(last).dilation);
  const auto run = static_cast<std::size_t>(box_[last].count);
  const std::int64_t k_step = k.axis[last] * step, v_step = v.axis[last] * step;
  const auto ascend = [&](std::size_t array, std::size_t n, std::int32_t from, std::int32_t by) {
    std::int32_t* const to = slot.places.data() + array * stride + n;
    for (std::size_t i = 0; i < run; ++i) to[i] = from + static_cast<std::int32_t>(i) * by;
  };
  std::vector<Stretch>& heads = line_heads_;
  heads.assign(box_.begin(), box_.end());
  heads[last].count = 1;
  each_token(heads, grid, [&](std::int64_t number, const std::int32_t* token) {
    const std::size_t n = static_cast<std::size_t>(number) * run;
    const std::int64_t k_first = offset_of(k, p.k_axis, token), v_first = offset_of(v, p.k_axis, token);
    for (std::size_t i = 0; i < run; ++i) {
      slot.rows[n + i] = k_first + static_cast<std::int64_t>(i) * k_step;
      slot.rows[stride + n + i] = v_first + static_cast<std::int64_t>(i) * v_step;
    }
    if (kernel_.reads_key_places) {
      ascend(PlaceLayout::kPosition, n, position_of(p.k_axis, token), step);
      for (std::size_t i = 0; i <= last; ++i)
        ascend(layout_.key_coordinate(i), n, token[i], i == last ? step : 0);
    }
    for (std::size_t i = 0; i <= last; ++i)
      if (kernel_.windowed(i))
        ascend(layout_.key_in_group(i), n, token[i] / grid.axis(i).dilation, i == last ? 1 : 0);
  });
}

// Floats that lie as products take them are read in place.
void Worker::fill_stretch(KeySlot& slot, const runtime::Strided& k, const runtime::Strided& v,
                          std::int64_t local, int dilation) {
  KeyTile& t = slot.tile;
  t.k_step = k.axis[0] * dilation;
  t.v_step = v.axis[0] * dilation;
  const auto n = static_cast<std::size_t>(t.count);
  const auto place = [&](const runtime::Strided& x, const void*& data, std::int64_t step, std::int64_t* rows,
                         bool in_place, std::int64_t bit) {
    const std::int64_t first = local * x.axis[0];
    if (in_place && x.dtype == DType::f32 && x.dim == 1) {
      data = static_cast<const float*>(data) + first;
      t.direct |= bit;
    } else {
      for (std::size_t i = 0; i < n; ++i) rows[i] = first + static_cast<std::int64_t>(i) * step;
    }
  };
  place(k, t.k, t.k_step, slot.rows.data(), !kernel_.key_l2norm && (sums_ == nullptr || whole_rows_),
        kDirectKeys);
  if (size_of(k.dtype) == 2 && k.dim == 1 && t.k_step % 2 == 0) t.direct |= kPairedKeys;
  place(v, t.v, t.v_step, slot.rows.data() + keys(), kernel_.options.value_dim % 16 == 0, kDirectValues);
}

std::int32_t Worker::compute(const Code& code, std::int64_t number) {
  code.begin(&tile_);
  // A tile is visited when the one after it is known, which it fetches.
  KeySlot* waiting = nullptr;
  std::size_t turn = 0;
  plan_->each_tile(plan_->slices().of(batch_, head_), number, row_, [&](std::int64_t n, bool full) {
    KeySlot& slot = slots_[turn ^= 1];
    fill_keys(slot, plan_->grid(), n, full);
    if (slot.tile.count == 0) return;
    if (waiting != nullptr) visit(code, waiting->tile, &slot.tile);
    waiting = &slot;
  });
  if (waiting != nullptr) visit(code, waiting->tile, nullptr);
  return code.end(&tile_);
}

void Worker::visit(const Code& code, KeyTile& tile, const KeyTile* next) {
  const auto rows_lie_together = [&](std::int64_t step, std::int64_t width) {
    return next->direct == kDirectKeys + kDirectValues && step == width;
  };
  // Where they do not, something that is in the cache is fetched again.
  const bool k = next != nullptr && rows_lie_together(next->k_step, kernel_.options.head_dim),
             v = next != nullptr && rows_lie_together(next->v_step, kernel_.options.value_dim);
  tile.next_k = k ? next->k : workspace_.get();
  tile.next_v = v ? next->v : workspace_.get();
  tile.next_d_keys = tile.next_d_values = workspace_.get();
  if (sums_ != nullptr && next != nullptr) {
    tile.next_d_keys = sums_->keys(next->sum_row[0]);
    tile.next_d_values = sums_->values(next->sum_row[0]);
  }
  code.visit(&tile_, &tile);
}

}  // namespace vicinal::cpu
