// Matrix products of a warp (mma.sync), how their operands come out of shared memory (ldmatrix), and the
// copies that bring them there (cp.async): one instruction per function, from sm_80 on.
#pragma once

#include "vicinal/ptx/convert.cuh"

namespace vicinal {

// Sixteen bytes; zeros where the source is not there.
VICINAL_DEVICE void copy_word(u32 to, const void* from, bool exists) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(exists ? 16 : 0)
               : "memory");
}
// Until everything that this thread put under way has arrived.
VICINAL_DEVICE void copies_wait() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

// Four 8x8 matrices of 16-bit elements from the rows that the lanes' addresses name: lanes 0-7 the first,
// and so on. A lane gets two neighbours of row lane / 4 of each, or of column lane / 4.
VICINAL_DEVICE void load_matrices(u32 address, u32 (&x)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(address));
}
VICINAL_DEVICE void load_transposed_matrices(u32 address, u32 (&x)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(address));
}

// c += a * b: 16x8 += 16x16 * 16x8. A lane has of c the columns 2 * (lane % 4) and the next, of the rows
// lane / 4 (the first two) and lane / 4 + 8.
template <class T>
VICINAL_DEVICE void add_product(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1);
template <>
VICINAL_DEVICE void add_product<bf16>(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
VICINAL_DEVICE void add_product<f16>(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
VICINAL_DEVICE u32 round_to_tf32(float x) {
  u32 y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return y;
}
// 16x8 += 16x8 * 8x8 in tf32: fp32 numbers of which the upper 19 bits count.
VICINAL_DEVICE void add_tf32_product(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace vicinal
