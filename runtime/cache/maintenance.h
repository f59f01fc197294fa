// Looking after a cache on disk: listing, checking, pruning, clearing. All of it is safe while other
// processes use the cache: an entry that vanishes under them is a miss, and one that vanishes under us is
// skipped.
#pragma once

#include <vicinal/result.h>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/cache/disk_cache.h"
#include "runtime/cache/kernel_key.h"

namespace vicinal::cache {

struct EntryInfo {
  std::string digest;
  std::filesystem::path path;
  std::uint64_t bytes = 0;
  std::chrono::nanoseconds last_use{};  // since the epoch, on the filesystem's clock
};

// Most recently used first.
std::vector<EntryInfo> list(const DiskCache& cache);

struct EntryDetails {
  EntryInfo info;
  KernelKey key;
  Payload payload;
};

// Of the one entry whose digest begins so.
Result<EntryDetails> inspect(const DiskCache& cache, std::string_view digest_prefix);

struct VerifyReport {
  std::size_t intact = 0;
  std::size_t other_format = 0;  // left alone: another version of the program may use them
  struct Damage {
    std::string digest;
    std::string detail;
    bool removed = false;
  };
  std::vector<Damage> damaged;
};

// Reads every entry and checks all that find() checks; removes the damaged ones if asked to.
VerifyReport verify(const DiskCache& cache, bool remove_damaged);

struct Limits {
  std::uint64_t max_bytes = 0;   // 0: no limit
  std::chrono::hours max_age{};  // since the last use; 0: no limit
};

struct PruneReport {
  std::size_t evicted = 0;
  std::size_t leftovers = 0;  // temporaries of killed writers, and idle locks
  std::uint64_t bytes_before = 0;
  std::uint64_t bytes_after = 0;
};

// Evicts what has not been used for too long, then the least recently used until the rest fits.
Result<PruneReport> prune(const DiskCache& cache, const Limits& limits);

// Whether the last prune, by any process, is more than an hour ago.
bool is_prune_due(const DiskCache& cache);

// Removes every entry; returns how many.
std::size_t clear(const DiskCache& cache);

}  // namespace vicinal::cache
