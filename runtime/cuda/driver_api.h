// The CUDA driver, opened at run time. The types and signatures are those of the documented driver API; `_v2`
// and the like name the ABI that drivers of CUDA 12 and 13 both export.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <filesystem>
#include <string>
#include <type_traits>

#include "runtime/host/dynamic_library.h"

namespace vicinal::cuda {

using Status = int;  // CUresult; 0 is success
using DeviceId = int;
using DevicePointer = unsigned long long;
using ContextHandle = struct CUctx_st*;
using ModuleHandle = struct CUmod_st*;
using FunctionHandle = struct CUfunc_st*;
using StreamHandle = struct CUstream_st*;
using EventHandle = struct CUevent_st*;
using GraphHandle = struct CUgraph_st*;
using GraphExecHandle = struct CUgraphExec_st*;

// The enumerators in use, with the values of the API.
enum class DeviceAttribute : int {
  shared_memory_per_block = 8,
  multiprocessor_count = 16,
  l2_cache_size = 38,
  compute_capability_major = 75,
  compute_capability_minor = 76,
  shared_memory_per_multiprocessor = 81,
  shared_memory_per_block_optin = 97,
};
enum class FunctionAttribute : int {
  shared_bytes = 1,
  local_bytes = 3,
  registers = 4,
  max_dynamic_shared_bytes = 8,
};
// How a tensor map reads its tensor.
enum class TensorMapType : int { u8 = 0, f16 = 6, bf16 = 9 };
enum class TensorMapInterleave : int { none = 0 };
enum class TensorMapSwizzle : int { none = 0, bytes_128 = 3 };
enum class TensorMapPromotion : int { none = 0, bytes_256 = 3 };
enum class TensorMapFill : int { zeros = 0 };
enum class CaptureStatus : int { none = 0, active = 1, invalidated = 2 };
enum class CaptureMode : int { thread_local_ = 1 };
constexpr unsigned kStreamNonBlocking = 1;

// CUlaunchAttribute and CUlaunchConfig.
enum class LaunchAttributeId : int { programmatic_stream_serialization = 6 };
struct alignas(8) LaunchAttribute {
  LaunchAttributeId id;
  int padding = 0;
  union {
    int allowed;
    char bytes[64];
  } value;
};
struct LaunchConfig {
  unsigned grid[3], block[3];
  unsigned dynamic_shared_bytes;
  StreamHandle stream;
  LaunchAttribute* attributes;
  unsigned attribute_count;
};

// clang-format off
#define VICINAL_DRIVER_FUNCTIONS(X)                                                                             \
  X(init,                  "cuInit",                      unsigned)                                             \
  X(driver_version,        "cuDriverGetVersion",          int*)                                                 \
  X(error_name,            "cuGetErrorName",              Status, const char**)                                 \
  X(error_string,          "cuGetErrorString",            Status, const char**)                                 \
  X(device_count,          "cuDeviceGetCount",            int*)                                                 \
  X(device_get,            "cuDeviceGet",                 DeviceId*, int)                                       \
  X(device_name,           "cuDeviceGetName",             char*, int, DeviceId)                                 \
  X(device_attribute,      "cuDeviceGetAttribute",        int*, DeviceAttribute, DeviceId)                      \
  X(device_memory,         "cuDeviceTotalMem_v2",         std::size_t*, DeviceId)                               \
  X(primary_retain,        "cuDevicePrimaryCtxRetain",    ContextHandle*, DeviceId)                             \
  X(primary_release,       "cuDevicePrimaryCtxRelease_v2", DeviceId)                                            \
  X(context_current,       "cuCtxGetCurrent",             ContextHandle*)                                       \
  X(context_device,        "cuCtxGetDevice",              DeviceId*)                                            \
  X(context_push,          "cuCtxPushCurrent_v2",         ContextHandle)                                        \
  X(context_pop,           "cuCtxPopCurrent_v2",          ContextHandle*)                                       \
  X(context_synchronize,   "cuCtxSynchronize")                                                                  \
  X(module_load,           "cuModuleLoadData",            ModuleHandle*, const void*)                           \
  X(module_unload,         "cuModuleUnload",              ModuleHandle)                                         \
  X(module_function,       "cuModuleGetFunction",         FunctionHandle*, ModuleHandle, const char*)           \
  X(function_attribute,    "cuFuncGetAttribute",          int*, FunctionAttribute, FunctionHandle)              \
  X(function_set_attribute, "cuFuncSetAttribute",         FunctionHandle, FunctionAttribute, int)               \
  X(launch_kernel,         "cuLaunchKernel",              FunctionHandle, unsigned, unsigned, unsigned,         \
                                                          unsigned, unsigned, unsigned, unsigned,               \
                                                          StreamHandle, void**, void**)                         \
  X(launch_kernel_with,    "cuLaunchKernelEx",            const LaunchConfig*, FunctionHandle, void**, void**)  \
  X(memory_allocate,       "cuMemAlloc_v2",               DevicePointer*, std::size_t)                          \
  X(memory_free,           "cuMemFree_v2",                DevicePointer)                                        \
  X(memory_info,           "cuMemGetInfo_v2",             std::size_t*, std::size_t*)                           \
  X(copy_to_device,        "cuMemcpyHtoDAsync_v2",        DevicePointer, const void*, std::size_t, StreamHandle) \
  X(copy_to_host,          "cuMemcpyDtoHAsync_v2",        void*, DevicePointer, std::size_t, StreamHandle)      \
  X(copy_on_device,        "cuMemcpyDtoDAsync_v2",        DevicePointer, DevicePointer, std::size_t, StreamHandle) \
  X(memory_set,            "cuMemsetD8Async",             DevicePointer, unsigned char, std::size_t, StreamHandle) \
  X(stream_create,         "cuStreamCreate",              StreamHandle*, unsigned)                              \
  X(stream_destroy,        "cuStreamDestroy_v2",          StreamHandle)                                         \
  X(stream_synchronize,    "cuStreamSynchronize",         StreamHandle)                                         \
  X(stream_begin_capture,  "cuStreamBeginCapture_v2",     StreamHandle, CaptureMode)                            \
  X(stream_end_capture,    "cuStreamEndCapture",          StreamHandle, GraphHandle*)                           \
  X(stream_is_capturing,   "cuStreamIsCapturing",         StreamHandle, CaptureStatus*)                         \
  X(tensor_map_encode,     "cuTensorMapEncodeTiled",      void*, TensorMapType, unsigned, void*,                \
                                                          const unsigned long long*, const unsigned long long*, \
                                                          const unsigned*, const unsigned*,                     \
                                                          TensorMapInterleave, TensorMapSwizzle,                \
                                                          TensorMapPromotion, TensorMapFill)                    \
  X(graph_instantiate,     "cuGraphInstantiateWithFlags", GraphExecHandle*, GraphHandle, unsigned long long)    \
  X(graph_launch,          "cuGraphLaunch",               GraphExecHandle, StreamHandle)                        \
  X(graph_exec_destroy,    "cuGraphExecDestroy",          GraphExecHandle)                                      \
  X(graph_destroy,         "cuGraphDestroy",              GraphHandle)                                          \
  X(event_create,          "cuEventCreate",               EventHandle*, unsigned)                               \
  X(event_record,          "cuEventRecord",               EventHandle, StreamHandle)                            \
  X(event_synchronize,     "cuEventSynchronize",          EventHandle)                                          \
  X(event_elapsed,         "cuEventElapsedTime",          float*, EventHandle, EventHandle)                     \
  X(event_destroy,         "cuEventDestroy_v2",           EventHandle)
// clang-format on

struct DriverApi {
#define VICINAL_DECLARE(name, text, ...) host::Function<__VA_ARGS__> name{text};
  VICINAL_DRIVER_FUNCTIONS(VICINAL_DECLARE)
#undef VICINAL_DECLARE
  std::filesystem::path path;
  int version = 0;  // 12040 for 12.4
};

// Opens and initialises the driver, once per path; a failure is remembered too. Without a path the loader
// finds it.
Result<const DriverApi*> driver(const std::filesystem::path& path = {});

// The error of a failed call: its name, its arguments, and what the driver says about the status.
Unexpected driver_error(const DriverApi& api, const char* call, const std::string& arguments, Status status);

namespace detail {
template <class T>
std::string shown(T value) {
  if constexpr (std::is_pointer_v<T>) {
    return fmt::format("{}", static_cast<const void*>(value));
  } else if constexpr (std::is_enum_v<T>) {
    return fmt::format("{}", static_cast<int>(value));
  } else {
    return fmt::format("{}", value);
  }
}
}  // namespace detail

// Calls a function of the driver. Nothing is formatted unless it fails.
template <class... P>
Result<void> check(const DriverApi& api, const host::Function<P...>& function,
                   std::type_identity_t<P>... arguments) {
  const Status status = function.address(arguments...);
  if (status == 0) return {};
  std::string text;
  ((text += (text.empty() ? "" : ", ") + detail::shown(arguments)), ...);
  return driver_error(api, function.symbol, text, status);
}

}  // namespace vicinal::cuda
