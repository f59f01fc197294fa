// The kernels this process has met, least recently used first to go. Keyed by the key's whole record:
// comparing it is exact, and far cheaper than the SHA-256 that names the entry on disk.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "runtime/cache/entry.h"

namespace vicinal::cache {

class MemoryCache {
 public:
  explicit MemoryCache(std::uint64_t max_bytes) : max_bytes_(max_bytes) {}

  std::shared_ptr<const Payload> find(std::string_view record);
  void insert(std::string_view record, std::shared_ptr<const Payload> payload);

 private:
  struct Slot {
    std::string record;
    std::shared_ptr<const Payload> payload;

    std::uint64_t bytes() const;
  };

  std::mutex mutex_;
  std::list<Slot> slots_;                                                  // most recently used first
  std::unordered_map<std::string_view, std::list<Slot>::iterator> index_;  // views into the slots
  std::uint64_t bytes_ = 0;
  const std::uint64_t max_bytes_;
};

}  // namespace vicinal::cache
