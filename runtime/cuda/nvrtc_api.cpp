#include "runtime/cuda/nvrtc_api.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <map>

namespace vicinal::cuda {
namespace {

namespace fs = std::filesystem;

constexpr const char* kHelp =
    "install the CUDA toolkit of version 12 or 13, or `pip install nvidia-cuda-nvrtc`, or name the library "
    "by "
    "VICINAL_NVRTC";
constexpr const char* kNames[] = {"libnvrtc.so.13", "libnvrtc.so.12"};

// The entries of a folder whose names start with a prefix, newest name first; nothing if it cannot be read.
std::vector<fs::path> entries(const fs::path& folder, std::string_view prefix) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->path().filename().string().starts_with(prefix)) found.push_back(it->path());
  }
  std::sort(found.rbegin(), found.rend());
  return found;
}

void add_existing(std::vector<std::string>& candidates, const fs::path& folder) {
  std::error_code error;
  for (const char* name : kNames) {
    const std::string path = (folder / name).string();
    const bool known = std::find(candidates.begin(), candidates.end(), path) != candidates.end();
    if (!known && fs::exists(path, error)) candidates.push_back(path);
  }
}

// The folders that hold `python3.x/site-packages` by custom. Only NVIDIA's own wheels are looked at.
void add_python(std::vector<std::string>& candidates) {
  std::vector<fs::path> prefixes = {"/usr/local/lib", "/usr/lib"};
  for (const char* variable : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    if (const char* value = std::getenv(variable)) prefixes.insert(prefixes.begin(), fs::path(value) / "lib");
  }
  if (const char* home = std::getenv("HOME")) prefixes.push_back(fs::path(home) / ".local/lib");
  for (const fs::path& prefix : prefixes) {
    for (const fs::path& python : entries(prefix, "python3")) {
      for (const char* packages : {"site-packages", "dist-packages"}) {
        add_existing(candidates, python / packages / "nvidia/cu13/lib");
        add_existing(candidates, python / packages / "nvidia/cuda_nvrtc/lib");
      }
    }
  }
}

Result<const NvrtcApi*> load(const fs::path& path) {
  VICINAL_TRY(const host::DynamicLibrary library,
              host::open_library({"NVRTC, the CUDA run-time compiler", nvrtc_candidates(path), kHelp}));
  static auto& loaded = *new std::map<void*, NvrtcApi>;  // never destroyed: a late compile may still use it
  NvrtcApi& api = loaded[library.handle];
  api.path = library.path;
  const char* missing = nullptr;
#define VICINAL_RESOLVE(name, text, ...)               \
  api.name.resolve(host::find_symbol, library.handle); \
  if (api.name.address == nullptr) missing = api.name.symbol;
  VICINAL_NVRTC_FUNCTIONS(VICINAL_RESOLVE)
#undef VICINAL_RESOLVE
  api.error_string =
      reinterpret_cast<const char* (*)(int)>(host::find_symbol(library.handle, "nvrtcGetErrorString"));
  if (api.error_string == nullptr) missing = "nvrtcGetErrorString";
  if (missing != nullptr) {
    return unexpected(ErrorKind::environment, fmt::format("{} has no {}", api.path.string(), missing), kHelp);
  }
  (void)api.version.address(&api.major, &api.minor);
  // NVRTC asks the loader for its builtins by name alone, which finds nothing when NVRTC itself came by path.
  // Once opened from beside it, they are found under that name. Where they are not beside it, the loader may
  // know.
  (void)host::open_library({"NVRTC's builtins", {api.builtins().string()}, {}});
  return &api;
}

}  // namespace

fs::path NvrtcApi::builtins() const {
  return path.parent_path() / fmt::format("libnvrtc-builtins.so.{}.{}", major, minor);
}

std::vector<std::string> nvrtc_candidates(const fs::path& path) {
  std::error_code error;
  std::vector<std::string> candidates;
  if (!path.empty()) {
    if (fs::is_directory(path, error)) {
      for (const char* name : kNames) candidates.push_back((path / name).string());
    } else {
      candidates.push_back(path.string());
    }
    return candidates;
  }
  candidates.assign(std::begin(kNames), std::end(kNames));
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"}) {
    if (const char* value = std::getenv(variable)) add_existing(candidates, fs::path(value) / "lib64");
  }
  for (const fs::path& toolkit : entries("/usr/local", "cuda")) add_existing(candidates, toolkit / "lib64");
  add_python(candidates);
  return candidates;
}

Result<const NvrtcApi*> nvrtc(const fs::path& path) {
  static host::LoadedLibraries<NvrtcApi> loaded;
  return loaded.get(path, load);
}

}  // namespace vicinal::cuda
