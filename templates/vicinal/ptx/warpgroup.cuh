// Matrix products of a warpgroup (wgmma), and what goes with them: one instruction per function. The products
// themselves name every accumulator and are emitted with the kernel that uses them.
#pragma once

#include "vicinal/ptx/convert.cuh"

namespace vicinal {

// Until at most so many committed groups are under way.
template <int Groups>
VICINAL_DEVICE void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Groups) : "memory");
}

// Closes a group of products, which may have none.
VICINAL_DEVICE void products_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Products name their accumulators as operands that they read, and the compiler keeps for them what nobody
// needs, unless it is told.
template <int N>
VICINAL_DEVICE void leave_undefined(float (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "=f"(x[i]));
}

// The threads of a warpgroup give registers back, or wait until they get so many.
template <int Registers>
VICINAL_DEVICE void shrink_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
VICINAL_DEVICE void grow_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}

// Operand tiles lie in slabs of 64 channels: rows of 128 bytes, whose 16-byte chunks are swizzled by the row
// (chunk ^ row % 8), as the copy engine's 128-byte mode writes them. A slab starts at a multiple of 1024.
constexpr int kSlabChannels = 64, kSlabRowBytes = 128;
constexpr int slabs(int channels) {
  return (channels + kSlabChannels - 1) / kSlabChannels;
}

// A matrix descriptor (PTX ISA, "Matrix-descriptor format"). Strides in bytes: `stride` between groups of
// eight rows, `leading` between slabs, where one product spans several.
VICINAL_DEVICE u64 operand(u32 address, u32 leading, u32 stride) {
  constexpr u64 kSwizzle128 = 1ull << 62;
  return static_cast<u64>((address & 0x3ffff) >> 4) | static_cast<u64>(leading >> 4) << 16 |
         static_cast<u64>(stride >> 4) << 32 | kSwizzle128;
}

// Four 8x8 matrices of 16-bit elements to the rows that the lanes' addresses name.
VICINAL_DEVICE void store_matrices(u32 address, u32 a, u32 b, u32 c, u32 d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(a),
               "r"(b), "r"(c), "r"(d)
               : "memory");
}

// The same of their transposes: a lane gives two neighbours of a column.
VICINAL_DEVICE void store_transposed_matrices(u32 address, u32 a, u32 b, u32 c, u32 d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
               "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}

VICINAL_DEVICE void store_shared(u32 address, float a, float b, float c, float d) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(a), "f"(b), "f"(c), "f"(d)
               : "memory");
}
VICINAL_DEVICE uint4 load_shared(u32 address) {
  uint4 x;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "r"(address)
               : "memory");
  return x;
}

}  // namespace vicinal
