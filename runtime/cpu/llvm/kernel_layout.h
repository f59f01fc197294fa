// What the stages of a generated kernel share: sizes, and where in the workspace each array begins.
#pragma once

#include "compiler/emit/cpu/cpu_kernel.h"
#include "runtime/cpu/generated_code.h"
#include "runtime/cpu/llvm/cpu_target.h"

namespace vicinal::cpu {

constexpr std::int64_t round_up(std::int64_t x, std::int64_t step) {
  return (x + step - 1) / step * step;
}

// Scores lie transposed: a row for each key, queries as lanes. So a softmax runs down columns, without sums
// across lanes, and both products read keys and values as they lie in memory. They are those of a unit of
// queries, and the next unit's take their place, so that they stay in the cache that is nearest.
struct KernelLayout {
  KernelLayout(const emit::CpuKernel& kernel, const Blocking& blocking);

  Blocking block;
  PlaceLayout places;
  std::int64_t head_dim, value_dim;
  std::int64_t channels;  // of a row of the output or of packed values: value_dim in whole vectors
  // Offsets in words of 32 bits, floats unless products take pairs of bf16 (Blocking::per_word): then rows of
  // channels, and rows of keys in weights and values, are half as many. Sizes are those of floats either way,
  // so that exact code finds room where a task is done again.
  std::int64_t queries;       // [head_dim][tile_q], scaled where they are floats
  std::int64_t scores;        // [tile_k, and as many as a block has more][unit]; then weights
  std::int64_t output;        // [tile_q, and as many as a block has more][channels]
  std::int64_t maximum, sum;  // [tile_q] of the softmax so far; its exponents are to base 2
  std::int64_t rescale;       // [tile_q ...] what the output is multiplied with before a tile is added
  std::int64_t tile_maximum;  // [tile_q]
  std::int64_t limits;  // [tile_q], from each unit's first on two ints: the first key that it sees, the end
  std::int64_t inverse, lse;  // [tile_q] of the sum; of the result
  std::int64_t norms;         // [tile_k] of packed keys, inverse
  std::int64_t keys, values;  // [tile_k][head_channels] and [tile_k][channels], where they are packed
  // Of packed queries and keys: head_dim; in whole vectors in a backward pass, in whole rows of matrices.
  std::int64_t head_channels = 0;
  // Where products are of matrices (llvm/matrices.h), tiles have room for whole blocks of keys, and `output`
  // is [channels][tile_q].
  std::int64_t value_pairs = 0;  // [tile_k / 2][channels], before `values` are made of them
  std::int64_t output_rows = 0;  // [kLanes][channels]: some queries' output at a time
  // Of a backward pass, in which `output` is that of dQ.
  std::int64_t d_scores = 0;       // like scores: <dO, V> first
  std::int64_t d_out_columns = 0;  // [value_dim][tile_q]
  std::int64_t query_rows = 0;     // [tile_q][head_channels], scaled
  std::int64_t d_out_rows = 0;     // [tile_q][channels]
  std::int64_t out_rows = 0;       // [tile_q][channels]
  std::int64_t shared = 0;         // [tile_q]: dLSE - <dO, O>
  std::int64_t size = 0;
};

}  // namespace vicinal::cpu
