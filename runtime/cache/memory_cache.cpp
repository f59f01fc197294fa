#include "runtime/cache/memory_cache.h"

namespace vicinal::cache {

std::uint64_t MemoryCache::Slot::bytes() const {
  return record.size() + payload->binary.size() + payload->log.size() + payload->notes.size();
}

std::shared_ptr<const Payload> MemoryCache::find(std::string_view record) {
  const std::lock_guard lock(mutex_);
  const auto found = index_.find(record);
  if (found == index_.end()) return nullptr;
  slots_.splice(slots_.begin(), slots_, found->second);
  return slots_.front().payload;
}

void MemoryCache::insert(std::string_view record, std::shared_ptr<const Payload> payload) {
  const std::lock_guard lock(mutex_);
  if (index_.contains(record)) return;
  slots_.push_front({std::string(record), std::move(payload)});
  index_.emplace(slots_.front().record, slots_.begin());
  bytes_ += slots_.front().bytes();
  // The newest stays, however large it is.
  while (bytes_ > max_bytes_ && slots_.size() > 1) {
    bytes_ -= slots_.back().bytes();
    index_.erase(slots_.back().record);
    slots_.pop_back();
  }
}

}  // namespace vicinal::cache
