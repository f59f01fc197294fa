#include "runtime/cuda/arguments_writer.h"

#include <bit>
#include <cstring>

#include "compiler/support/check.h"

namespace vicinal::cuda {
namespace {

class Writer {
 public:
  explicit Writer(std::size_t rank) : rank_(rank) {}

  void word(std::uint64_t value) { words_.push_back(value); }
  void word(std::int64_t value) { words_.push_back(static_cast<std::uint64_t>(value)); }

  void axes(const std::vector<GridAxisWords>& axes) {
    VICINAL_ASSERT(axes.size() == rank_, "a grid must have as many axes as the kernel's rank");
    for (const GridAxisWords& axis : axes) {
      word(axis.extent);
      word(axis.local);
      word(axis.origin);
    }
  }

  void tensor(const TensorWords& tensor) {
    VICINAL_ASSERT(tensor.axis.size() <= rank_, "a tensor has more token axes than the kernel's rank");
    word(tensor.data);
    word(tensor.batch);
    word(tensor.head);
    word(tensor.dim);
    for (std::size_t i = 0; i < rank_; ++i) word(i < tensor.axis.size() ? tensor.axis[i] : std::int64_t{0});
  }

  void tiles(const TileWords& tiles) {
    VICINAL_ASSERT(tiles.q.size() == rank_ && tiles.k.size() == rank_,
                   "a tile has an extent along every axis");
    for (const std::int64_t extent : tiles.q) word(extent);
    for (const std::int64_t extent : tiles.k) word(extent);
    word(tiles.rows);
    word(tiles.row_runs);
    word(tiles.runs);
    word(tiles.run_capacity);
    word(tiles.pairs);
    word(tiles.slice_batch);
    word(tiles.slice_head);
    word(tiles.heads_per_slice);
  }

  std::vector<std::byte> bytes() const {
    std::vector<std::byte> bytes(words_.size() * sizeof(std::uint64_t));
    std::memcpy(bytes.data(), words_.data(), bytes.size());
    return bytes;
  }

 private:
  std::size_t rank_;
  std::vector<std::uint64_t> words_;
};

void write(const ForwardWords& forward, const ParameterWords& parameters, Writer& writer) {
  for (const std::int64_t value :
       {forward.batch, forward.heads, forward.kv_heads, forward.tokens, forward.keys, forward.context}) {
    writer.word(value);
  }
  writer.axes(forward.q_axis);
  writer.axes(forward.k_axis);
  for (const TensorWords* tensor : {&forward.q, &forward.k, &forward.v, &forward.context_k,
                                    &forward.context_v, &forward.out, &forward.lse}) {
    writer.tensor(*tensor);
  }
  writer.tiles(forward.tiles);
  for (const std::uint64_t word : parameters.words()) writer.word(word);
  if (parameters.words().empty()) writer.word(std::uint64_t{0});
}

}  // namespace

void ParameterWords::add_float(float value) {
  words_.push_back(std::bit_cast<std::uint32_t>(value));
}

void ParameterWords::add_input(std::uint64_t data, std::span<const std::int64_t> strides,
                               std::span<const std::int64_t> extents) {
  add_pointer(data);
  for (const auto& list : {strides, extents}) {
    for (const std::int64_t value : list) add_int(value);
    if (list.empty()) add_int(0);
  }
}

std::vector<std::byte> write_arguments(const ForwardWords& forward, const ParameterWords& parameters) {
  Writer writer(forward.q_axis.size());
  write(forward, parameters, writer);
  return writer.bytes();
}

std::vector<std::byte> write_arguments(const ForwardWords& forward, const ParameterWords& parameters,
                                       const BackwardWords& backward) {
  Writer writer(forward.q_axis.size());
  write(forward, parameters, writer);
  for (const TensorWords* tensor :
       {&backward.d_out, &backward.d_lse, &backward.given_d_out, &backward.d_q, &backward.d_k, &backward.d_v,
        &backward.d_context_k, &backward.d_context_v})
    writer.tensor(*tensor);
  writer.word(backward.only_if);
  writer.word(backward.key_rows);
  for (const std::uint64_t address : {backward.d_rows, backward.row_terms, backward.partial_sums})
    writer.word(address);
  writer.word(backward.captured_elements);
  writer.word(backward.partial_blocks);
  std::vector<CapturedGradientWords> captured = backward.captured;
  if (captured.empty()) captured.emplace_back();
  for (const CapturedGradientWords& c : captured) {
    writer.word(c.data);
    writer.word(c.begin);
    writer.word(c.count);
  }
  return writer.bytes();
}

}  // namespace vicinal::cuda
