// Bulk copies of boxes between a tensor and shared memory (TMA): one instruction per function. All tensors
// are described with five dimensions; those that a tensor lacks have the extent 1.
#pragma once

#include "vicinal/platform.cuh"

namespace vicinal {

// What the driver encodes (cuTensorMapEncodeTiled). Lives in the kernel's parameters and is never copied.
struct alignas(64) TensorMap {
  char bytes[128];
};

// Innermost first; may lie outside of the tensor, where reads give 0 and writes do nothing.
struct BoxOrigin {
  int channel, second, third, fourth, last;
};

// What the L2 cache should do with the lines: keep those that many blocks read, drop those that one does.
constexpr u64 kEvictLast = 0x14F0000000000000ull, kEvictFirst = 0x12F0000000000000ull;

VICINAL_DEVICE void copy_box(u32 to, const TensorMap* map, const BoxOrigin& at, u32 barrier, u64 hint) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4, %5, %6, %7}], [%2], %8;" ::"r"(to),
      "l"(map), "r"(barrier), "r"(at.channel), "r"(at.second), "r"(at.third), "r"(at.fourth), "r"(at.last),
      "l"(hint)
      : "memory");
}
// Bytes that follow each other; a multiple of 16.
VICINAL_DEVICE void copy_bytes(u32 to, const void* from, u32 bytes, u32 barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}
VICINAL_DEVICE void store_box(const TensorMap* map, const BoxOrigin& at, u32 from) {
  asm volatile(
      "cp.async.bulk.tensor.5d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4, %5, %6}], [%1];" ::"l"(
          map),
      "r"(from), "r"(at.channel), "r"(at.second), "r"(at.third), "r"(at.fourth), "r"(at.last)
      : "memory");
}
// Bytes that follow each other, or fp32 numbers that are added; a multiple of 16.
VICINAL_DEVICE void store_bytes(void* to, u32 from, u32 bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from), "r"(bytes)
               : "memory");
}
VICINAL_DEVICE void add_floats(float* to, u32 from, u32 bytes) {
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to),
               "r"(from), "r"(bytes)
               : "memory");
}
VICINAL_DEVICE void store_commit() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
// Until shared memory may be overwritten, or until the tensor holds what was stored.
VICINAL_DEVICE void store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}
VICINAL_DEVICE void store_wait() {
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}
}  // namespace vicinal
