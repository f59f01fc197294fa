// How a program wants its kernels cached.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

namespace vicinal::cache {

enum class CacheMode : std::uint8_t {
  on,
  off,      // every request compiles
  memory,   // kept while the process lives
  refresh,  // what is on disk is compiled anew, once per process, and replaced
  offline,  // what is not in the cache is an error
};

struct CacheOptions {
  std::optional<std::filesystem::path> directory;  // none: memory only
  std::vector<std::filesystem::path> packaged;     // read only, searched after the user's own
  CacheMode mode = CacheMode::on;
  bool shared_with_group = false;
  std::uint64_t max_bytes = std::uint64_t{1} << 30;          // on disk; 0: no limit
  std::chrono::hours max_age = std::chrono::hours{24 * 90};  // on disk, since the last use; 0: no limit
  std::uint64_t max_memory_bytes = std::uint64_t{1} << 28;
  std::chrono::milliseconds patience{60'000};  // for another thread or process that compiles the same kernel
  // May be called from any thread.
  std::function<void(std::string_view)> warn = [](std::string_view) {};
};

}  // namespace vicinal::cache
