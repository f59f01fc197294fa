#include "runtime/cpu/code_generator.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <string_view>

#include "runtime/host/dynamic_library.h"

namespace vicinal::cpu {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kName = VICINAL_CODE_GENERATOR;
constexpr std::string_view kHelp =
    "build with LLVM 19 (Debian's llvm-19-dev), or set VICINAL_CPU_LLVM to the library; without it the "
    "interpreter computes for the CPU";

// Of the program or library that this code is in.
fs::path own_folder() {
  Dl_info info;
  std::error_code error;
  if (dladdr(reinterpret_cast<void*>(&own_folder), &info) == 0 || info.dli_fname == nullptr) return {};
  const fs::path path = fs::canonical(info.dli_fname, error);
  // A program's name may be any word; the loader then knows it by what it was started as.
  return error ? fs::canonical("/proc/self/exe", error).parent_path() : path.parent_path();
}

std::vector<std::string> candidates(const fs::path& path) {
  std::error_code error;
  if (!path.empty()) return {(fs::is_directory(path, error) ? path / kName : path).string()};
  std::vector<std::string> found;
  if (const fs::path folder = own_folder(); !folder.empty())
    for (const fs::path& place : {folder, folder / ".." / "lib", folder / ".." / VICINAL_LIBRARY_FOLDER})
      if (fs::exists(place / kName, error)) found.push_back((place / kName).lexically_normal().string());
  found.emplace_back(kName);
  return found;
}

Result<const CodeGeneratorApi*> load(const fs::path& path) {
  VICINAL_TRY(const host::DynamicLibrary library,
              host::open_library({"the code generator for the CPU", candidates(path), std::string(kHelp)}));
  using Function = const CodeGeneratorApi* (*)();
  const auto function = reinterpret_cast<Function>(host::find_symbol(library.handle, kCodeGeneratorSymbol));
  if (function == nullptr)
    return unexpected(ErrorKind::environment, fmt::format("{} is no code generator", library.path.string()),
                      std::string(kHelp));
  const CodeGeneratorApi* const api = function();
  if (std::string_view(api->interface) != VICINAL_CODE_INTERFACE)
    return unexpected(ErrorKind::environment,
                      fmt::format("{} was built from other sources than this", library.path.string()),
                      "build and install both together");
  if (std::string_view(api->host).starts_with("unusable"))
    return unexpected(ErrorKind::environment, fmt::format("{}: {}", library.path.string(), api->host));
  return api;
}

}  // namespace

Result<const CodeGeneratorApi*> code_generator(const fs::path& path) {
  static host::LoadedLibraries<CodeGeneratorApi> loaded;
  return loaded.get(path, load);
}

}  // namespace vicinal::cpu
