// Evaluates a boolean of the IR over boxes: all queries of one box against all keys of another at once. The
// answer is "for every pair", "for no pair" or "cannot say", by the set arithmetic of
// templates/vicinal/ranges.cuh, and is never wrong; on boxes of one token it is the value itself.
#pragma once

#include <bit>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "compiler/analysis/set_value.h"
#include "compiler/ir/evaluate.h"

namespace vicinal::analysis {

// What captured inputs hold over boxes of indices, which are clamped into the input's extents as a read is.
class InputRanges {
 public:
  static constexpr std::size_t kMaxIndices = 5;
  virtual ~InputRanges() = default;
  virtual ranges::Range integers(std::uint32_t input, std::span<const ranges::Range> indices) const = 0;
  virtual ranges::RealRange reals(std::uint32_t input, std::span<const ranges::Range> indices) const = 0;
  virtual ranges::Truth truths(std::uint32_t input, std::span<const ranges::Range> indices) const = 0;
  // Sum over the last dimension of both.
  virtual ranges::RealRange dot(std::uint32_t first, std::span<const ranges::Range> first_indices,
                                std::uint32_t second,
                                std::span<const ranges::Range> second_indices) const = 0;
};

// A box of tokens: what q, q.index (or k) and the coordinates can be.
struct TokenBox {
  ranges::Range position, index;
  std::vector<ranges::Range> coordinate;
};

// The dimensions of an input whose index may be several numbers at a time, so that reads of it must be
// answered over ranges: those that a box of tokens spreads out, and those that may be several numbers though
// neither query nor key changes them, since the set arithmetic does not keep what is NaN a single number.
struct RangedDimensions {
  std::uint8_t spread_out = 0, uncertain = 0;

  bool any() const { return (spread_out | uncertain) != 0; }
  // The one that a table's lines should run along; there is one.
  int along() const { return std::bit_width(spread_out != 0 ? spread_out : uncertain) - 1; }
  void include(RangedDimensions other) {
    spread_out |= other.spread_out;
    uncertain |= other.uncertain;
  }
};

class BoxProgram {
 public:
  // `root` is a bool of `module`, which is specialised for one kind of key. Both outlive the program.
  BoxProgram(const ir::Module& module, ir::NodeId root);

  // Whether anything changes with the batch, the query head, or the key head alone.
  bool reads_batch() const { return reads_batch_; }
  bool reads_head() const { return reads_head_; }
  bool reads_kv_head() const { return reads_kv_head_; }
  // By input: whether any element is read, and the dimensions that are asked about by ranges.
  const std::vector<bool>& inputs_read() const { return inputs_read_; }
  const std::vector<RangedDimensions>& ranged_dimensions() const { return ranged_dimensions_; }

  // Values under evaluation. One per thread.
  class Evaluator {
   public:
    // `launch` knows extents and params.
    Evaluator(const BoxProgram& program, const ir::SymbolLookup& launch, const InputRanges& inputs);
    // In this order; each keeps what it computed until it is called again.
    void slice(int b, int h, int kv_h);
    void queries(const TokenBox& box);
    void keys(const TokenBox& box);
    ranges::Truth evaluate();

   private:
    void run(int stage);
    SetValue launch_time(const ir::Node& node) const;
    SetValue load(const ir::Node& node, std::uint32_t input) const;
    SetValue dot(const ir::Node& node) const;
    std::span<const ranges::Range> indices(const ir::Node& node, std::size_t first, std::size_t last,
                                           ranges::Range* out) const;

    const BoxProgram& program_;
    const ir::SymbolLookup& launch_;
    const InputRanges& inputs_;
    int b_ = 0, h_ = 0, kv_h_ = 0;
    const TokenBox *queries_ = nullptr, *keys_ = nullptr;
    std::vector<SetValue> values_;
  };

 private:
  enum Stage { kLaunchTime, kSlice, kQueries, kKeys, kPair, kStages };
  // A node, and how its value is found, without a look at the module for what is done most.
  enum class How : std::uint8_t { launch_time, b, h, kv_h, q, q_index, q_axis, k, k_axis, apply, load, dot };
  struct Step {
    std::uint32_t node;
    How how;
    ir::Op op = {};                              // of apply
    std::uint32_t index = 0;                     // of an axis or an input
    std::uint32_t operands[ir::kMaxArity] = {};  // of apply
  };
  static Step step(const ir::Module& module, std::uint32_t node);

  const ir::Module& module_;
  ir::NodeId root_;
  std::vector<Step> steps_[kStages];  // operands first
  std::vector<RangedDimensions> ranged_dimensions_;
  bool reads_batch_ = false, reads_head_ = false, reads_kv_head_ = false;
  std::vector<bool> inputs_read_;
};

}  // namespace vicinal::analysis
