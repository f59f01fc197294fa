// Which of its columns a thread keeps, as bits. In the accumulator of a product a thread has two rows, and of
// each the columns 8 * j + 2 * c and 8 * j + 2 * c + 1, where c is its place among four lanes: bit 2 * j is
// the first, bit 2 * j + 1 the second (PTX ISA, "wgmma accumulator fragment").
#pragma once

#include "vicinal/ptx/math.cuh"

namespace vicinal::hopper {

template <bool Wide>
struct BitsOf {
  using Type = u32;
};
template <>
struct BitsOf<true> {
  using Type = u64;
};
template <int Columns>
using ColumnBits = typename BitsOf<(Columns > 128)>::Type;

// The lowest `count` bits; counts may lie outside of the word.
VICINAL_DEVICE u32 low_bits(u32, int count) {
  return shift_right(~0u, count >= 32 ? 0 : 32 - (count < 0 ? 0 : count));
}
VICINAL_DEVICE u64 low_bits(u64, int count) {
  return static_cast<u64>(low_bits(0u, count - 32)) << 32 | low_bits(0u, count);
}

// Columns before `limit`, which counts from the thread's first column.
template <class Bits>
VICINAL_DEVICE Bits columns_before(int limit) {
  const int inside = limit & 7;
  return low_bits(Bits{}, limit <= 0 ? 0 : (limit >> 3) * 2 + (inside < 2 ? inside : 2));
}

}  // namespace vicinal::hopper
