#include "runtime/cpu/llvm/kernel.h"

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
  const std::int64_t q = block.tile_q, k = round_up(block.tile_k, 4) + block.qk_keys;
  queries = take(head_dim * q);
  scores = take(k * q + kLanes);
  output = take((q + block.pv_queries) * channels);
  maximum = take(q);
  sum = take(q);
  rescale = take(q + block.pv_queries);
  tile_maximum = take(q);
  limits = take(q);
  inverse = take(q);
  lse = take(q);
  norms = take(block.tile_k);
  keys = take(block.tile_k * head_dim);
  values = take(block.tile_k * channels);
}

void emit_kernel(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel) {
  emit_begin(e, layout, kernel);
  emit_visit(e, layout, kernel);
  emit_end(e, layout, kernel);
}

}  // namespace vicinal::cpu
