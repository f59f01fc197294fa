// Hopper's barriers, copy engine and matrix products, in cuda_on_host.h's way: copies are done when they are
// put under way, products when they are waited for, which is the last moment at which a device may do them.
#pragma once

#include <cstdio>
#include <cstdlib>

#include "tensor_map_on_host.h"
#include "warps_on_host.h"

namespace cuda_on_host {

// Shared memory, whose addresses count from its beginning. Fresh blocks find NaN in it.
constexpr std::size_t kSharedBytes = 227 << 10;
// Where a block's own part begins: not at a multiple of what its kernel aligns to.
constexpr std::size_t kSharedStart = 16;
alignas(1024) inline char shared_memory[kSharedBytes + 1024];

struct NamedBarriers {
  Meeting at[16];
};
inline NamedBarriers named;

// A product of 64 rows with N columns over 16 channels: what a thread has of it.
struct Product {
  float* sums;
  int columns;
  bool adds, transposed_b, a_in_registers;
  bool is_f16;
  std::uint64_t a, b;
  float rows[2][16];
};
struct Group {
  std::vector<Product> products;
};
struct ThreadProducts {
  std::vector<Product> open;
  std::vector<Group> under_way;
};
inline std::vector<ThreadProducts> products;

inline void begin_hopper_block() {
  std::memset(shared_memory, 0xff, sizeof shared_memory);
  named = {};
  products.assign(block.threads.size(), {});
}

// A barrier in shared memory: arrivals that are left and asked for, bytes that are left, and the phase.
struct Barrier {
  std::uint16_t left, arrivals;
  std::int32_t bytes : 31;
  std::uint32_t phase : 1;
};
static_assert(sizeof(Barrier) == 8);

inline Barrier& barrier_at(std::uint32_t address) {
  return *reinterpret_cast<Barrier*>(shared_memory + address);
}
inline void complete(Barrier& b) {
  if (b.left != 0 || b.bytes != 0) return;
  b.left = b.arrivals;
  b.phase ^= 1;
}

// A number of an operand in shared memory: `swizzled` turns the address of its row and channel.
inline std::uint32_t swizzled(std::uint32_t address) {
  return address ^ (address >> 7 & 7) << 4;
}
inline float half_at(std::uint32_t address, bool is_f16) {
  std::uint16_t bits;
  std::memcpy(&bits, shared_memory + swizzled(address), 2);
  if (!is_f16) return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  return f16_to_float(bits);
}
struct Operand {
  std::uint32_t start, leading, stride;
  explicit Operand(std::uint64_t d)
      : start((d & 0x3fff) << 4), leading((d >> 16 & 0x3fff) << 4), stride((d >> 32 & 0x3fff) << 4) {}
  // Channels follow each other; groups of eight rows are `stride` apart.
  std::uint32_t by_row(unsigned row, unsigned channel) const {
    return start + row / 8 * stride + row % 8 * 128 + channel * 2;
  }
  // Rows follow each other, 64 at a time, `leading` apart; groups of eight channels are `stride` apart.
  std::uint32_t by_channel(unsigned row, unsigned channel) const {
    return start + row / 64 * leading + channel / 8 * stride + channel % 8 * 128 + row % 64 * 2;
  }
};

inline void compute(Product& p) {
  const unsigned lane = thread_index.x % 32, warp = thread_index.x / 32 % 4;
  const Operand a(p.a), b(p.b);
  for (unsigned r = 0; r < 2; ++r) {
    if (p.a_in_registers) break;
    for (unsigned k = 0; k < 16; ++k)
      p.rows[r][k] = half_at(a.by_row(warp * 16 + lane / 4 + 8 * r, k), p.is_f16);
  }
  for (int i = 0; i < p.columns / 2; i += 4) {
    for (int e = 0; e < 2; ++e) {
      const unsigned column = static_cast<unsigned>(i / 4 * 8 + e) + lane % 4 * 2;
      float sum[2] = {};
      for (unsigned k = 0; k < 16; ++k) {
        const float x = half_at(p.transposed_b ? b.by_channel(column, k) : b.by_row(column, k), p.is_f16);
        sum[0] += p.rows[0][k] * x;
        sum[1] += p.rows[1][k] * x;
      }
      for (int r = 0; r < 2; ++r) {
        float& to = p.sums[i + 2 * r + e];
        to = p.adds ? to + sum[r] : sum[r];
      }
    }
  }
}

template <bool F16, int N>
void multiply(float* sums, std::uint64_t a, std::uint64_t b, bool adds, bool transposed_a,
              bool transposed_b) {
  if (transposed_a) fail("an operand that nobody transposes");
  products[thread_index.x].open.push_back({sums, N, adds, transposed_b, false, F16, a, b, {}});
}
// The first operand from registers: a thread has two neighbours of its two rows, and of them 8 further on.
template <bool F16, int N>
void multiply(float* sums, std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3,
              std::uint64_t b, bool adds, bool transposed_b) {
  Product p{sums, N, adds, transposed_b, true, F16, 0, b, {}};
  struct Four {
    std::uint32_t word[4];
  };
  const unsigned lane = thread_index.x % 32;
  among_lanes(Four{{a0, a1, a2, a3}}, [&](auto of) {
    for (unsigned n = 0; n < 4; ++n) {
      const Four four = of(lane / 4 * 4 + n);
      for (unsigned r = 0; r < 2; ++r)
        for (unsigned half = 0; half < 2; ++half)
          for (unsigned e = 0; e < 2; ++e) {
            const auto bits = static_cast<std::uint16_t>(four.word[2 * half + r] >> 16 * e);
            p.rows[r][8 * half + 2 * n + e] =
                F16 ? f16_to_float(bits) : std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
          }
    }
    return 0;
  });
  products[thread_index.x].open.push_back(p);
}
inline void commit_products() {
  ThreadProducts& mine = products[thread_index.x];
  mine.under_way.push_back({std::move(mine.open)});
  mine.open.clear();
}
inline void wait_for_products(std::size_t left) {
  std::vector<Group>& groups = products[thread_index.x].under_way;
  while (groups.size() > left) {
    for (Product& p : groups.front().products) compute(p);
    groups.erase(groups.begin());
  }
}

// Boxes of 64 channels, rows of 128 bytes; what lies outside of the tensor is 0.
template <class Each>
void each_word(const HostTensorMap& map, std::uint32_t address, const int (&at)[5], Each each) {
  std::uint32_t row = 0;
  int token[5] = {0, 0, 0, 0, 0};
  for (;;) {
    std::int64_t offset = 0;
    bool inside = true;
    for (int i = 1; i < 5; ++i) {
      const std::int64_t index = at[i] + std::int64_t{token[i]} * map.step[i];
      inside = inside && index >= 0 && index < map.extent[i];
      offset += index * map.stride[i];
    }
    for (int c = 0; c < 64; ++c) {
      const std::int64_t channel = at[0] + c;
      const bool there = inside && channel >= 0 && channel < map.extent[0];
      each(shared_memory + swizzled(address + row * 128 + static_cast<std::uint32_t>(c) * 2),
           there ? map.data + offset + channel * 2 : nullptr);
    }
    ++row;
    int i = 1;
    while (i < 5 && ++token[i] == map.count[i]) token[i++] = 0;
    if (i == 5) return;
  }
}

}  // namespace cuda_on_host
