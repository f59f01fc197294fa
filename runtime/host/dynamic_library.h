// Shared libraries opened at run time, so that one build works with and without CUDA or LLVM.
#pragma once

#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include <vicinal/result.h>

namespace vicinal::host {

// A function of such a library: its symbol, and its address once loaded. A table of these is all that the
// rest of the code knows of the library.
template <class... Parameters>
struct Function {
  const char* symbol;
  int (*address)(Parameters...) = nullptr;

  void resolve(void* (*find)(void*, const char*), void* library) {
    address = reinterpret_cast<int (*)(Parameters...)>(find(library, symbol));
  }
};

struct DynamicLibrary {
  void* handle = nullptr;  // never closed: threads of ours may still run in it when the program ends
  std::filesystem::path path;
};

struct LibrarySearch {
  std::string what;                     // "the CUDA driver"
  std::vector<std::string> candidates;  // in order; a bare name is left to the loader
  std::string help;                     // what to install
};

// The first candidate that opens. The error lists every candidate with the loader's reason.
Result<DynamicLibrary> open_library(const LibrarySearch& search);

void* find_symbol(void* library, const char* symbol);

// What libraries have been loaded to, by the path that they were asked for at. Each is loaded once; that one
// could not be is remembered too.
template <class Api>
class LoadedLibraries {
 public:
  template <class Load>
  Result<const Api*> get(const std::filesystem::path& path, const Load& load) {
    const std::lock_guard guard(lock_);
    if (const auto known = loaded_.find(path); known != loaded_.end()) return known->second;
    return loaded_.emplace(path, load(path)).first->second;
  }

 private:
  std::mutex lock_;
  std::map<std::filesystem::path, Result<const Api*>> loaded_;
};

// What identifies the bytes of a library: the build id of the ELF file, or, without one, the bytes. As
// SHA-256.
Result<std::string> library_identity(const std::filesystem::path& path);

}  // namespace vicinal::host
