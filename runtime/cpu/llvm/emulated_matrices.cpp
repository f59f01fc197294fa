// Matrix registers by calls: one thread's, as the instructions' documentation has them (Intel's instruction
// set reference, TDPBF16PS).
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "runtime/cpu/llvm/matrices.h"

namespace vicinal::cpu {
namespace {

struct EmulatedRegister {
  std::uint32_t word[kMatrixRows][kLanes];
};
thread_local std::array<EmulatedRegister, 8> emulated{};
thread_local bool configured = false;

float half_of(std::uint32_t word, bool high) {
  return std::bit_cast<float>(high ? word & 0xffff0000u : word << 16);
}

// What is used without a configuration stays NaN, which no test passes by.
void configure_emulated(const void*) {
  configured = true;
}
void release_emulated() {
  configured = false;
}
void clear_emulated(std::int8_t to) {
  std::memset(&emulated[static_cast<std::size_t>(to)], configured ? 0 : 0xff, sizeof(EmulatedRegister));
}
void load_emulated(std::int8_t to, const char* from, std::int64_t step) {
  clear_emulated(to);
  if (!configured) return;
  for (auto& row : emulated[static_cast<std::size_t>(to)].word) {
    std::memcpy(row, from, sizeof row);
    from += step;
  }
}
void store_emulated(std::int8_t from, char* to, std::int64_t step) {
  for (const auto& row : emulated[static_cast<std::size_t>(from)].word) {
    std::memcpy(to, row, sizeof row);
    to += step;
  }
}
// First and second halves of words have sums of their own, which are added up at the end.
void multiply_add_emulated(std::int8_t sum, std::int8_t left, std::int8_t right) {
  const auto& a = emulated[static_cast<std::size_t>(left)].word;
  const auto& b = emulated[static_cast<std::size_t>(right)].word;
  auto& c = emulated[static_cast<std::size_t>(sum)].word;
  for (int m = 0; m < kMatrixRows; ++m)
    for (int n = 0; n < kLanes; ++n) {
      float sums[2] = {};
      for (int k = 0; k < kMatrixRows; ++k)
        for (const bool high : {false, true})
          sums[high] = std::fma(half_of(a[m][k], high), half_of(b[k][n], high), sums[high]);
      c[m][n] = std::bit_cast<std::uint32_t>(std::bit_cast<float>(c[m][n]) + (sums[0] + sums[1]));
    }
}

}  // namespace

std::span<const HostFunction> matrix_functions() {
  static const HostFunction functions[] = {
      {"vicinal_matrix_configure", reinterpret_cast<void*>(configure_emulated)},
      {"vicinal_matrix_release", reinterpret_cast<void*>(release_emulated)},
      {"vicinal_matrix_clear", reinterpret_cast<void*>(clear_emulated)},
      {"vicinal_matrix_load", reinterpret_cast<void*>(load_emulated)},
      {"vicinal_matrix_store", reinterpret_cast<void*>(store_emulated)},
      {"vicinal_matrix_multiply_add", reinterpret_cast<void*>(multiply_add_emulated)}};
  return functions;
}

}  // namespace vicinal::cpu
