// Gradients of a head's keys and values while they are added up.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

namespace vicinal::cpu {

// Rows of f32, zeroed when they are first touched since the last clear(), a block of them at a time. After
// the last row comes one more, which takes what nobody reads.
class KeySums {
 public:
  static constexpr std::int64_t kBlock = 64;  // rows

  // Keeps its memory where that is enough.
  void clear(std::int64_t rows, std::int64_t key_width, std::int64_t value_width) {
    const std::int64_t floats = (rows + 1) * (key_width + value_width);
    if (floats > room_) {
      memory_.reset(static_cast<float*>(
          ::operator new (static_cast<std::size_t>(floats) * sizeof(float), std::align_val_t{64})));
      room_ = floats;
    }
    rows_ = rows;
    key_width_ = key_width;
    value_width_ = value_width;
    touched_.assign(static_cast<std::size_t>(rows / kBlock + 1), 0);
    std::memset(keys(rows), 0, static_cast<std::size_t>(key_width) * sizeof(float));
    std::memset(values(rows), 0, static_cast<std::size_t>(value_width) * sizeof(float));
  }

  std::int64_t rows() const { return rows_; }
  std::int64_t key_width() const { return key_width_; }
  std::int64_t value_width() const { return value_width_; }
  float* keys(std::int64_t row) const { return memory_.get() + row * key_width_; }
  float* values(std::int64_t row) const { return keys(rows_ + 1) + row * value_width_; }

  std::int64_t blocks() const { return (rows_ + kBlock - 1) / kBlock; }
  bool touched(std::int64_t block) const { return touched_[static_cast<std::size_t>(block)] != 0; }
  std::int64_t block_rows(std::int64_t block) const { return std::min(kBlock, rows_ - block * kBlock); }
  void touch(std::int64_t row) {
    const std::int64_t block = row / kBlock;
    if (touched(block)) return;
    touched_[static_cast<std::size_t>(block)] = 1;
    const auto count = static_cast<std::size_t>(block_rows(block));
    const auto zero = [&](float* from, std::int64_t width) {
      std::memset(from, 0, count * static_cast<std::size_t>(width) * sizeof(float));
    };
    zero(keys(block * kBlock), key_width_);
    zero(values(block * kBlock), value_width_);
  }

 private:
  struct FreeAligned {
    void operator()(float* p) const { ::operator delete (p, std::align_val_t{64}); }
  };

  std::unique_ptr<float, FreeAligned> memory_;
  std::int64_t room_ = 0, rows_ = 0, key_width_ = 0, value_width_ = 0;
  std::vector<std::uint8_t> touched_;  // by block
};

}  // namespace vicinal::cpu
