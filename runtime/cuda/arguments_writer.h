// Writes a kernel's ForwardArguments (templates/vicinal/arguments.cuh) from host structs whose rank is known
// only at run time. Every field is one 8-byte word, in the order of the declaration.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace vicinal::cuda {

// A tensor in device memory by its strides, in elements. `axis` has one stride per grid axis; a context
// tensor has one. Axes left out count 0.
struct TensorWords {
  std::uint64_t data = 0;
  std::int64_t batch = 0, head = 0, dim = 1;
  std::vector<std::int64_t> axis;
};

struct GridAxisWords {
  std::int64_t extent = 0;
  std::int64_t local = 0, origin = 0;  // of the shard; the whole axis has local = extent, origin = 0
};

// How the kernel walks its tiles (TileArguments). Addresses are 0 where there is no list.
struct TileWords {
  std::vector<std::int64_t> q, k;  // as many as the rank
  std::int64_t rows = 0;
  std::uint64_t row_runs = 0, runs = 0;
  std::int64_t run_capacity = 0;
  std::uint64_t pairs = 0;
  std::int64_t slice_batch = 0, slice_head = 0, heads_per_slice = 1;
};

struct ForwardWords {
  std::int64_t batch = 0, heads = 0, kv_heads = 0;
  std::int64_t tokens = 0, keys = 0, context = 0;
  std::vector<GridAxisWords> q_axis, k_axis;  // as many as the rank
  TensorWords q, k, v, context_k, context_v, out, lse;
  TileWords tiles;
};

// The words of the emitted Parameters struct, in its order.
class ParameterWords {
 public:
  void add_int(std::int64_t value) { words_.push_back(static_cast<std::uint64_t>(value)); }
  void add_float(float value);  // the low half of its word
  void add_pointer(std::uint64_t address) { words_.push_back(address); }
  // An InputArgument: data, then strides, then extents. Rank 0 has one unused stride and extent.
  void add_input(std::uint64_t data, std::span<const std::int64_t> strides,
                 std::span<const std::int64_t> extents);

  std::span<const std::uint64_t> words() const { return words_; }

 private:
  std::vector<std::uint64_t> words_;
};

// An empty Parameters struct still takes a word, as an empty C++ struct takes a byte.
std::vector<std::byte> write_arguments(const ForwardWords& forward, const ParameterWords& parameters);

// What BackwardArguments (templates/vicinal/backward_arguments.cuh) has beyond ForwardArguments.
struct CapturedGradientWords {
  std::uint64_t data = 0;
  std::int64_t begin = 0, count = 0;
};
struct BackwardWords {
  TensorWords d_out, d_lse, given_d_out;
  TensorWords d_q, d_k, d_v, d_context_k, d_context_v;
  std::uint64_t only_if = 0;
  std::int64_t key_rows = 0;
  std::uint64_t d_rows = 0, row_terms = 0, partial_sums = 0;
  std::int64_t captured_elements = 0, partial_blocks = 0;
  std::vector<CapturedGradientWords> captured;
};
std::vector<std::byte> write_arguments(const ForwardWords& forward, const ParameterWords& parameters,
                                       const BackwardWords& backward);

}  // namespace vicinal::cuda
