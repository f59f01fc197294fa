// Kernels by key: from memory, else from disk, else compiled, once for all who ask at the same time. Whatever
// goes wrong with the cache, the worst is that a kernel is compiled again; only the compiler's own errors
// come through.
#pragma once

#include <vicinal/result.h>
#include <array>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/cache/background_queue.h"
#include "runtime/cache/cache_options.h"
#include "runtime/cache/disk_cache.h"
#include "runtime/cache/kernel_key.h"
#include "runtime/cache/memory_cache.h"

namespace vicinal::cache {

enum class Source : std::uint8_t { memory, disk, compiled };

struct Outcome {
  Source source = Source::compiled;
  Miss miss = Miss::none;  // why it is not from the cache
  std::string detail;      // about the miss, if there is more to say
};

struct CachedKernel {
  std::shared_ptr<const Payload> payload;
  Outcome outcome;
};

struct Counters {
  std::uint64_t memory_hits = 0;
  std::uint64_t disk_hits = 0;
  std::uint64_t compiled = 0;
  std::array<std::uint64_t, kMissCount> misses{};  // by Miss
  std::uint64_t impatient = 0;                     // gave up waiting for another who compiles the same
  std::uint64_t published = 0;
  std::uint64_t evicted = 0;
  std::uint64_t errors = 0;  // of the cache itself
};
// One row per counter and per reason of a miss, for reports.
std::vector<std::pair<std::string, std::uint64_t>> rows(const Counters& counters);

// All member functions may be called from any thread.
class KernelCache {
 public:
  using Compile = std::function<Result<Payload>()>;

  explicit KernelCache(CacheOptions options);
  ~KernelCache() = default;  // publishes what is still to be published

  // The error is the compiler's, or the lack of the kernel in offline mode.
  Result<CachedKernel> get_or_compile(const KernelKey& key, const Compile& compile);

  // Returns when all that was compiled so far is on disk, or has failed to get there.
  void flush() { publisher_.flush(); }

  Counters counters() const;
  const DiskCache* disk() const { return disk_ ? &*disk_ : nullptr; }

 private:
  struct Request;
  using Flight = std::shared_future<Result<CachedKernel>>;

  void open_directories();
  Result<CachedKernel> resolve_once(const Request& request);
  Result<CachedKernel> resolve(const Request& request);
  Lookup find_on_disk(const Request& request);
  std::shared_ptr<FileLock> lock_key(const Request& request);
  Result<CachedKernel> compile_now(const Request& request, Lookup missed, std::shared_ptr<FileLock> lock);
  void publish(const std::string& digest, const std::string& record, const Payload& payload);
  void prune_if_needed(std::uint64_t published_bytes);
  CachedKernel hit(Source source, std::shared_ptr<const Payload> payload);
  void note_error(const std::string& message, const std::string& topic = {});
  void count(std::uint64_t Counters::*counter, std::uint64_t by = 1);

  const CacheOptions options_;
  std::optional<DiskCache> disk_;
  std::vector<DiskCache> packaged_;
  Lookup no_disk_;  // what find_on_disk answers when there is no disk cache
  MemoryCache memory_;

  std::mutex flights_mutex_;
  std::unordered_map<std::string, Flight> flights_;  // by record: what is being resolved now

  mutable std::mutex statistics_mutex_;
  Counters counters_;
  std::set<std::string> warned_;  // topics: each trouble is told once, not once per kernel

  std::uint64_t unpruned_bytes_ = 0;  // the publishing thread's own
  BackgroundQueue publisher_;         // last: it ends first, and uses the rest until then
};

}  // namespace vicinal::cache
