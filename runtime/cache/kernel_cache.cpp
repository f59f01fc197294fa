#include "runtime/cache/kernel_cache.h"

#include <fmt/format.h>

#include <new>

#include "compiler/support/hash.h"
#include "runtime/cache/maintenance.h"

namespace vicinal::cache {

struct KernelCache::Request {
  const std::string record;
  const std::string digest;
  const Compile& compile;
};

std::vector<std::pair<std::string, std::uint64_t>> rows(const Counters& counters) {
  std::vector<std::pair<std::string, std::uint64_t>> result = {{"memory-hits", counters.memory_hits},
                                                               {"disk-hits", counters.disk_hits},
                                                               {"compiled", counters.compiled},
                                                               {"impatient", counters.impatient},
                                                               {"published", counters.published},
                                                               {"evicted", counters.evicted},
                                                               {"errors", counters.errors}};
  for (std::size_t i = 1; i < kMissCount; ++i) {
    result.emplace_back(fmt::format("miss-{}", name_of(static_cast<Miss>(i))), counters.misses[i]);
  }
  return result;
}

KernelCache::KernelCache(CacheOptions options)
    : options_(std::move(options)), memory_(options_.max_memory_bytes) {
  open_directories();
}

void KernelCache::open_directories() {
  no_disk_.miss = Miss::memory_only;
  if (options_.mode == CacheMode::off || options_.mode == CacheMode::memory) return;
  if (runs_with_changed_identity()) {
    no_disk_ = {nullptr, Miss::directory_refused, "the program runs with another user's or group's rights"};
    note_error("the kernel cache is kept in memory only: " + no_disk_.detail);
    return;
  }
  if (options_.directory) {
    auto opened =
        DiskCache::open(*options_.directory, options_.shared_with_group ? Trust::group : Trust::own);
    if (opened) {
      disk_ = *std::move(opened);
    } else {
      no_disk_ = {nullptr, Miss::directory_refused, opened.error().message};
      note_error("the kernel cache is kept in memory only: " + no_disk_.detail);
    }
  }
  for (const auto& directory : options_.packaged) {
    auto opened = DiskCache::open(directory, Trust::packaged);
    if (opened) {
      packaged_.push_back(*std::move(opened));
    } else {
      note_error("a read-only kernel cache is not used: " + opened.error().message);
    }
  }
}

Result<CachedKernel> KernelCache::get_or_compile(const KernelKey& key, const Compile& compile) {
  std::string record = cache::record(key);
  if (options_.mode == CacheMode::off) {
    return compile_now({std::move(record), {}, compile}, {nullptr, Miss::off, {}}, nullptr);
  }
  if (auto payload = memory_.find(record)) return hit(Source::memory, std::move(payload));
  std::string name = support::sha256_hex(record);
  return resolve_once({std::move(record), std::move(name), compile});
}

// The first thread that asks for a key resolves it; the others take what it gets.
Result<CachedKernel> KernelCache::resolve_once(const Request& request) {
  std::promise<Result<CachedKernel>> promise;
  Flight flight;
  bool leads = false;
  {
    const std::lock_guard lock(flights_mutex_);
    // A flight may have landed since the caller looked.
    if (auto payload = memory_.find(request.record)) return hit(Source::memory, std::move(payload));
    const auto [it, is_new] = flights_.try_emplace(request.record);
    if (is_new) it->second = promise.get_future().share();
    flight = it->second;
    leads = is_new;
  }
  if (!leads) {
    if (flight.wait_for(options_.patience) == std::future_status::ready) {
      const Result<CachedKernel>& landed = flight.get();
      if (!landed) return landed;
      return hit(Source::memory, landed->payload);
    }
    count(&Counters::impatient);
    return resolve(request);
  }
  // Also when the compiler throws, nobody may be left waiting.
  const auto land = [&] {
    const std::lock_guard lock(flights_mutex_);
    flights_.erase(request.record);
  };
  try {
    Result<CachedKernel> result = resolve(request);
    promise.set_value(result);
    land();
    return result;
  } catch (...) {
    promise.set_exception(std::current_exception());
    land();
    throw;
  }
}

Result<CachedKernel> KernelCache::resolve(const Request& request) {
  Lookup lookup = find_on_disk(request);
  std::shared_ptr<FileLock> lock;
  if (!lookup.payload && options_.mode == CacheMode::on && disk_) {
    lock = lock_key(request);
    // Another process may have compiled it while this one waited.
    if (lock) lookup = find_on_disk(request);
  }
  if (lookup.payload) {
    memory_.insert(request.record, lookup.payload);
    return hit(Source::disk, std::move(lookup.payload));
  }
  if (options_.mode == CacheMode::offline) {
    const std::string why = lookup.detail.empty() ? std::string(name_of(lookup.miss)) : lookup.detail;
    const std::lock_guard guard(statistics_mutex_);
    ++counters_.misses[static_cast<std::size_t>(lookup.miss)];
    return unexpected(ErrorKind::environment,
                      fmt::format("kernel {} is not in the cache ({}), and the cache is offline",
                                  request.digest.substr(0, 12), why),
                      "compile it once with the cache on, or import it");
  }
  if (lookup.miss == Miss::damaged) note_error("a cached kernel is compiled again: " + lookup.detail);
  return compile_now(request, std::move(lookup), std::move(lock));
}

Lookup KernelCache::find_on_disk(const Request& request) {
  if (options_.mode == CacheMode::refresh) return {nullptr, Miss::refresh, {}};
  Lookup lookup = disk_ ? disk_->find(request.digest, request.record) : no_disk_;
  for (const DiskCache& cache : packaged_) {
    if (lookup.payload) break;
    Lookup other = cache.find(request.digest, request.record);
    if (other.payload || other.miss == Miss::damaged) lookup = std::move(other);
  }
  return lookup;
}

std::shared_ptr<FileLock> KernelCache::lock_key(const Request& request) {
  auto lock = disk_->lock(request.digest, options_.patience);
  if (!lock) {
    note_error("kernels may be compiled more than once: " + lock.error().message, "lock");
    return nullptr;
  }
  if (*lock) return std::make_shared<FileLock>(std::move(**lock));
  count(&Counters::impatient);
  return nullptr;
}

Result<CachedKernel> KernelCache::compile_now(const Request& request, Lookup missed,
                                              std::shared_ptr<FileLock> lock) {
  {
    const std::lock_guard guard(statistics_mutex_);
    ++counters_.misses[static_cast<std::size_t>(missed.miss)];
  }
  VICINAL_TRY(Payload compiled, request.compile());
  const auto payload = std::make_shared<const Payload>(std::move(compiled));
  count(&Counters::compiled);
  if (options_.mode != CacheMode::off) memory_.insert(request.record, payload);
  // An intact entry of another version is not ours to replace.
  if (disk_ && missed.miss != Miss::other_format) {
    // The lock goes along: who waits for it wants to find the entry.
    publisher_.post(
        [this, digest = request.digest, record = request.record, payload, lock = std::move(lock)] {
          try {
            publish(digest, record, *payload);
          } catch (const std::bad_alloc&) {  // a kernel that is not kept, nothing worse
            note_error("kernels are not kept for the next time: out of memory", "publish");
          }
        });
  }
  return CachedKernel{payload, {Source::compiled, missed.miss, std::move(missed.detail)}};
}

void KernelCache::publish(const std::string& digest, const std::string& record, const Payload& payload) {
  const std::string file = encode_entry(record, payload);
  if (const auto published = disk_->publish(digest, file); !published) {
    return note_error("kernels are not kept for the next time: " + published.error().message, "publish");
  }
  count(&Counters::published);
  prune_if_needed(file.size());
}

// Looking at every entry is worth it only now and then. The slack keeps the sum within the cap between two
// looks.
void KernelCache::prune_if_needed(std::uint64_t published_bytes) {
  unpruned_bytes_ += published_bytes;
  const std::uint64_t slack = options_.max_bytes / 16;
  const bool much_published = options_.max_bytes != 0 && unpruned_bytes_ > slack;
  if (!much_published && !is_prune_due(*disk_)) return;
  unpruned_bytes_ = 0;
  const auto report = prune(*disk_, {options_.max_bytes - slack, options_.max_age});
  if (!report) return note_error(report.error().message, "prune");
  count(&Counters::evicted, report->evicted);
}

CachedKernel KernelCache::hit(Source source, std::shared_ptr<const Payload> payload) {
  count(source == Source::memory ? &Counters::memory_hits : &Counters::disk_hits);
  return {std::move(payload), {source, Miss::none, {}}};
}

void KernelCache::count(std::uint64_t Counters::*counter, std::uint64_t by) {
  const std::lock_guard lock(statistics_mutex_);
  counters_.*counter += by;
}

void KernelCache::note_error(const std::string& message, const std::string& topic) {
  {
    const std::lock_guard lock(statistics_mutex_);
    ++counters_.errors;
    if (!warned_.insert(topic.empty() ? message : topic).second) return;
  }
  options_.warn(message);
}

Counters KernelCache::counters() const {
  const std::lock_guard lock(statistics_mutex_);
  return counters_;
}

}  // namespace vicinal::cache
