#include "runtime/cpu/backward_worker.h"

#include "runtime/cpu/differentiated.h"
#include "runtime/cpu/tile_tokens.h"

namespace vicinal::cpu {
namespace {

constexpr std::int64_t in_vectors(std::int64_t channels) {
  return (channels + 15) / 16 * 16;
}

// x * 0 is 0 for finite x alone.
bool finite(const float* x, std::int64_t count) {
  float check[16] = {};
  for (std::int64_t i = 0; i < count; i += 16)
    for (std::int64_t lane = 0; lane < 16; ++lane) check[lane] += x[i + lane] * 0;
  float all = 0;
  for (const float lane : check) all += lane;
  return all == 0;
}

bool finite(const KeySums& sums) {
  for (std::int64_t block = 0; block < sums.blocks(); ++block) {
    if (!sums.touched(block)) continue;
    const std::int64_t first = block * KeySums::kBlock, rows = sums.block_rows(block);
    if (!finite(sums.keys(first), rows * sums.key_width()) ||
        !finite(sums.values(first), rows * sums.value_width()))
      return false;
  }
  return true;
}

}  // namespace

BackwardWorker::BackwardWorker(const CompiledKernel& compiled, const ir::Module& checked)
    : Worker(compiled, checked),
      d_out_rows_(queries()),
      d_lse_(queries()),
      d_query_(queries() * static_cast<std::size_t>(in_vectors(kernel_.options.head_dim))) {}

void BackwardWorker::start(const BackwardRun& run) {
  Worker::start(run.problem, run.plan);
  run_ = &run;
}

void BackwardWorker::part(const Part& part, KeySums& sums, double* totals, std::size_t total_count,
                          const CodeInput* gradients) {
  sums_ = &sums;
  tile_.gradients = gradients;
  const auto clear = [&] {
    sums.clear(problem_.local_keys() + problem_.context, in_vectors(kernel_.options.head_dim),
               in_vectors(kernel_.options.value_dim));
  };
  clear();
  if (!compute_part(code_, part, totals, total_count) && finite(sums)) return;
  const Code* const exact = compiled_.exact_code();
  contaminated_ = contaminated_ || exact == nullptr;
  if (exact == nullptr) return;
  clear();
  compute_part(*exact, part, totals, total_count);
}

bool BackwardWorker::compute_part(const Code& code, const Part& part, double* totals,
                                  std::size_t total_count) {
  const plan::TileGrid& grid = plan_->grid();
  bool wrong = false;
  for (std::int64_t n = part.first; n < part.last; ++n) {
    const std::int64_t in_group = n / grid.rows(), number = n % grid.rows();
    const std::int64_t head = part.kv_head * run_->group() + in_group;
    grid.row(number, row_);
    if (std::ranges::any_of(row_.tokens, [](const Stretch& s) { return s.count == 0; })) continue;
    if (part.batch != batch_ || head != head_) start_slice(part.batch, head);
    fill_queries(grid);
    fill_gradients();
    tile_.totals = totals + static_cast<std::size_t>(in_group) * total_count;
    wrong = compute(code, number) != 0 || wrong;
    store_queries();
  }
  return wrong;
}

void BackwardWorker::fill_gradients() {
  const runtime::Strided &d_out = run_->given.out, &d_lse = run_->given.lse;
  each_token(row_.tokens, plan_->grid(), [&](std::int64_t number, const std::int32_t* token) {
    const auto n = static_cast<std::size_t>(number);
    d_out_rows_[n] = offset_of(d_out, problem_.q_axis, token);
    if (d_lse.data == nullptr) return;
    const std::int64_t at =
        batch_ * d_lse.batch + head_ * d_lse.head + offset_of(d_lse, problem_.q_axis, token);
    d_lse_[n] = static_cast<float>(host::load_element(d_lse.data, d_lse.dtype, at));
  });
  const auto count = static_cast<std::ptrdiff_t>(tile_.count);
  std::fill(d_out_rows_.begin() + count, d_out_rows_.end(), d_out_rows_[0]);
  tile_.d_out = slice_of(d_out, batch_, head_);
  tile_.d_out_dim = d_out.dim;
  tile_.d_out_row = d_out_rows_.data();
  tile_.d_lse = d_lse_.data();
  tile_.d_query = d_query_.data();
  tile_.d_keys = sums_->keys(0);
  tile_.d_values = sums_->values(0);
}

void BackwardWorker::store_queries() {
  const runtime::Strided& to = run_->wanted.q;
  if (to.data == nullptr) return;
  const std::int64_t width = in_vectors(problem_.head_dim);
  each_token(row_.tokens, plan_->grid(), [&](std::int64_t n, const std::int32_t* token) {
    float* const row = d_query_.data() + n * width;
    if (kernel_.query_l2norm)
      through_norm(row, problem_.q, problem_.head_dim,
                   batch_ * problem_.q.batch + head_ * problem_.q.head +
                       offset_of(problem_.q, problem_.q_axis, token));
    const std::int64_t at = batch_ * to.batch + head_ * to.head + offset_of(to, problem_.q_axis, token);
    host::store_floats(to.data, to.dtype, at, to.dim, row, problem_.head_dim);
  });
}

}  // namespace vicinal::cpu
