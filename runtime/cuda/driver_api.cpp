#include "runtime/cuda/driver_api.h"

#include <map>

namespace vicinal::cuda {
namespace {

constexpr const char* kHelp =
    "install the NVIDIA driver; in a container, start it with GPU access (such as --gpus all)";

Result<const DriverApi*> load(const std::filesystem::path& path) {
  const std::vector<std::string> candidates = path.empty()
                                                  ? std::vector<std::string>{"libcuda.so.1", "libcuda.so"}
                                                  : std::vector<std::string>{path.string()};
  VICINAL_TRY(const host::DynamicLibrary library, host::open_library({"the CUDA driver", candidates, kHelp}));

  static auto& loaded = *new std::map<void*, DriverApi>;  // never destroyed: its users may outlive any static
  DriverApi& api = loaded[library.handle];
  api.path = library.path;
  const char* missing = nullptr;
#define VICINAL_RESOLVE(name, text, ...)               \
  api.name.resolve(host::find_symbol, library.handle); \
  if (api.name.address == nullptr) missing = api.name.symbol;
  VICINAL_DRIVER_FUNCTIONS(VICINAL_RESOLVE)
#undef VICINAL_RESOLVE
  if (missing != nullptr) {
    return unexpected(ErrorKind::environment,
                      fmt::format("the CUDA driver {} has no {}", api.path.string(), missing),
                      "install a driver of CUDA 12.0 or later");
  }
  VICINAL_TRY_VOID(check(api, api.init, 0u));
  VICINAL_TRY_VOID(check(api, api.driver_version, &api.version));
  return &api;
}

}  // namespace

Result<const DriverApi*> driver(const std::filesystem::path& path) {
  static host::LoadedLibraries<DriverApi> loaded;
  return loaded.get(path, load);
}

Unexpected driver_error(const DriverApi& api, const char* call, const std::string& arguments, Status status) {
  const char* name = nullptr;
  const char* text = nullptr;
  api.error_name.address(status, &name);
  api.error_string.address(status, &text);
  return unexpected(ErrorKind::environment,
                    fmt::format("{}({}) failed: {} ({})", call, arguments,
                                name ? name : fmt::to_string(status).c_str(), text ? text : "unknown status"),
                    status == 100 ? kHelp : "");
}

}  // namespace vicinal::cuda
