// From CUDA source text to a cubin, through NVRTC. Headers come from memory and no folder is searched, so the
// result depends on nothing but the request and the library.
#pragma once

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "runtime/cuda/nvrtc_api.h"

namespace vicinal::cuda {

struct HeaderText {
  std::string name;  // as it is included: "vicinal/kernel.cuh"
  std::string text;
};

struct CompileRequest {
  std::string source;
  std::string entry;  // the extern "C" kernel, named in errors
  std::string arch;   // "sm_90a"
  std::vector<HeaderText> headers;
  std::vector<std::string> options;         // beyond those of fixed_options()
  bool ptx = false;                         // wanted beside the cubin
  std::chrono::milliseconds time_limit{0};  // 0: none
};

struct Compiled {
  std::vector<std::byte> cubin;
  std::string ptx;
  std::string log;
  double milliseconds = 0;
};

class NvrtcCompiler {
 public:
  // `path`: the library or its folder; empty: the usual places (nvrtc_candidates).
  static Result<NvrtcCompiler> open(const std::filesystem::path& path = {});

  int major() const { return api_->major; }
  int minor() const { return api_->minor; }
  const std::filesystem::path& path() const { return api_->path; }

  // Identifies the library's build, its builtins included; 64 hexadecimal digits, found once per library.
  Result<std::string> digest() const;

  // Compute capabilities such as 75, 80, 90; a suffixed arch (sm_90a) is supported where its number is.
  Result<std::vector<int>> supported_archs() const;

  // What every compile is called with before the request's own options, such as --std=c++20.
  std::vector<std::string> fixed_options(const std::string& arch) const;

  // Errors in the text are ours (ErrorKind::internal, with the compiler's log). Past its time limit a compile
  // gives ErrorKind::limit to the caller and ends on its own thread. Threads may compile at the same time.
  Result<Compiled> compile(const CompileRequest& request) const;

 private:
  explicit NvrtcCompiler(const NvrtcApi& api) : api_(&api) {}
  const NvrtcApi* api_;
};

}  // namespace vicinal::cuda
