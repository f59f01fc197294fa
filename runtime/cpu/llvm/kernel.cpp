#include "runtime/cpu/llvm/kernel.h"

#include <algorithm>

namespace vicinal::cpu {

KernelLayout::KernelLayout(const emit::CpuKernel& kernel, const Blocking& blocking)
    : block(blocking),
      places{kernel.declarations().axes.size()},
      head_dim(kernel.options.head_dim),
      value_dim(kernel.options.value_dim),
      channels(round_up(value_dim, kLanes)) {
  const auto take = [&](std::int64_t floats) {
    const std::int64_t at = size;
    size += round_up(floats, kLanes);
    return at;
  };
  const bool backward = kernel.pass == emit::CpuPass::backward;
  const std::int64_t q = block.tile_q,
                     k = round_up(block.tile_k, 4) + std::max(block.qk_keys, block.pv_queries);
  const std::int64_t tile_k = block.matrices ? round_up(block.tile_k, kMatrixDepth) : block.tile_k;
  head_channels = backward         ? round_up(head_dim, kLanes)
                  : block.matrices ? round_up(head_dim, kMatrixDepth)
                                   : head_dim;
  queries = take(head_channels * q);
  scores = take(k * block.unit + kLanes);
  output = take((q + block.pv_queries) * (backward ? head_channels : channels));
  maximum = take(q);
  sum = take(q);
  rescale = take(q + block.pv_queries);
  tile_maximum = take(q);
  limits = take(q);
  inverse = take(q);
  lse = take(q);
  norms = take(block.tile_k);
  keys = take(tile_k * head_channels);
  values = take(tile_k * channels);
  if (block.matrices) {
    value_pairs = take(tile_k / 2 * channels);
    output_rows = take(kLanes * channels);
  }
  if (!backward) return;
  d_scores = take(k * block.unit + kLanes);
  d_out_columns = take(channels * q);
  query_rows = take(q * head_channels);
  d_out_rows = take(q * channels);
  out_rows = take(q * channels);
  shared = take(q);
}

void emit_kernel(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel) {
  if (kernel.pass == emit::CpuPass::backward) {
    emit_backward_begin(e, layout, kernel);
    emit_backward_visit(e, layout, kernel);
    emit_backward_end(e, layout, kernel);
    return;
  }
  emit_begin(e, layout, kernel);
  emit_visit(e, layout, kernel);
  emit_end(e, layout, kernel);
}

}  // namespace vicinal::cpu
