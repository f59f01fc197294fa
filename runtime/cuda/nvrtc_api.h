// NVRTC, opened at run time. Types and signatures are those of the documented API.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "runtime/host/dynamic_library.h"

namespace vicinal::cuda {

using ProgramHandle = struct _nvrtcProgram*;

enum NvrtcStatus : int {
  kNvrtcSuccess = 0,
  kNvrtcInvalidOption = 5,
  kNvrtcCompilation = 6,
  kNvrtcBuiltinOperationFailure = 7,
};

// clang-format off
#define VICINAL_NVRTC_FUNCTIONS(X)                                                                              \
  X(version,          "nvrtcVersion",             int*, int*)                                                   \
  X(arch_count,       "nvrtcGetNumSupportedArchs", int*)                                                        \
  X(archs,            "nvrtcGetSupportedArchs",   int*)                                                         \
  X(create_program,   "nvrtcCreateProgram",       ProgramHandle*, const char*, const char*, int,                \
                                                  const char* const*, const char* const*)                       \
  X(destroy_program,  "nvrtcDestroyProgram",      ProgramHandle*)                                               \
  X(compile_program,  "nvrtcCompileProgram",      ProgramHandle, int, const char* const*)                       \
  X(cubin_size,       "nvrtcGetCUBINSize",        ProgramHandle, std::size_t*)                                  \
  X(cubin,            "nvrtcGetCUBIN",            ProgramHandle, char*)                                         \
  X(ptx_size,         "nvrtcGetPTXSize",          ProgramHandle, std::size_t*)                                  \
  X(ptx,              "nvrtcGetPTX",              ProgramHandle, char*)                                         \
  X(log_size,         "nvrtcGetProgramLogSize",   ProgramHandle, std::size_t*)                                  \
  X(log,              "nvrtcGetProgramLog",       ProgramHandle, char*)
// clang-format on

struct NvrtcApi {
#define VICINAL_DECLARE(name, text, ...) host::Function<__VA_ARGS__> name{text};
  VICINAL_NVRTC_FUNCTIONS(VICINAL_DECLARE)
#undef VICINAL_DECLARE
  const char* (*error_string)(int) = nullptr;
  std::filesystem::path path;
  int major = 0, minor = 0;

  std::filesystem::path builtins() const;  // the library of device functions that belongs beside it
};

// Where NVRTC is looked for, in order. `path`: a file, or a folder that holds one, which is then the only
// place.
std::vector<std::string> nvrtc_candidates(const std::filesystem::path& path = {});

// Opens NVRTC once per path; a failure is remembered too.
Result<const NvrtcApi*> nvrtc(const std::filesystem::path& path = {});

}  // namespace vicinal::cuda
