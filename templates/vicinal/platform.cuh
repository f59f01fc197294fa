// The few macros that let one header serve NVRTC, nvcc and a host compiler.
#pragma once

#if defined(__CUDACC__)
#define VICINAL_DEVICE __device__ __forceinline__
#define VICINAL_HD __host__ __device__ __forceinline__
#else
#define VICINAL_HD inline
#endif

namespace vicinal {
// NVRTC has no <cstdint>; these are the widths of every platform that CUDA runs on.
using i64 = long long;
using u64 = unsigned long long;
using u32 = unsigned int;
}  // namespace vicinal
