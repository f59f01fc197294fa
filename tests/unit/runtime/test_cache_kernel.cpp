// The front of the cache: outcomes, modes, one compilation for all who ask, and what it costs.
#include <doctest/doctest.h>
#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <latch>
#include <stdexcept>
#include <thread>

#include "runtime/cache/maintenance.h"
#include "tests/unit/runtime/cache_fixture.h"

using namespace vicinal;
using namespace vicinal::cache;
using namespace vicinal::test;
using std::chrono::milliseconds;

namespace {

CacheOptions options_for(const std::filesystem::path& directory, CacheMode mode = CacheMode::on) {
  CacheOptions options;
  options.directory = directory;
  options.mode = mode;
  return options;
}

std::uint64_t misses(const KernelCache& cache, Miss miss) {
  return cache.counters().misses[static_cast<std::size_t>(miss)];
}

Source source_of(KernelCache& cache, int number, int* calls = nullptr) {
  const auto kernel = cache.get_or_compile(key_of(number), compile_of(number, calls));
  REQUIRE(kernel);
  CHECK(*kernel->payload == payload_of(number));
  return kernel->outcome.source;
}

// The median of some runs, in microseconds.
template <class Work>
double median_microseconds(int runs, Work work) {
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work(i);
    times.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
  return times[static_cast<std::size_t>(runs / 2)];
}

}  // namespace

TEST_CASE("cache: compiled, then from memory, then from disk") {
  const TemporaryFolder folder;
  int calls = 0;
  {
    KernelCache cache(options_for(folder / "cache"));
    CHECK(source_of(cache, 1, &calls) == Source::compiled);
    CHECK(source_of(cache, 1, &calls) == Source::memory);
    CHECK(misses(cache, Miss::absent) == 1);
    cache.flush();
    CHECK(cache.counters().published == 1);
  }
  KernelCache cache(options_for(folder / "cache"));
  CHECK(source_of(cache, 1, &calls) == Source::disk);
  CHECK(source_of(cache, 1, &calls) == Source::memory);
  CHECK(calls == 1);
  const Counters counters = cache.counters();
  CHECK(counters.disk_hits == 1);
  CHECK(counters.memory_hits == 1);
  CHECK(counters.compiled == 0);
  CHECK(counters.errors == 0);
  const auto shown = rows(counters);
  CHECK(std::find(shown.begin(), shown.end(), std::pair<std::string, std::uint64_t>("disk-hits", 1)) !=
        shown.end());
  CHECK(shown.size() == 7 + kMissCount - 1);
}

TEST_CASE("cache: the compiler's error comes through, is not kept, and reaches all who wait") {
  const TemporaryFolder folder;
  KernelCache cache(options_for(folder / "cache"));
  const auto fail = []() -> Result<Payload> {
    return unexpected(ErrorKind::internal, "no such instruction");
  };
  for (int i = 0; i < 2; ++i) {
    const auto kernel = cache.get_or_compile(key_of(1), fail);
    REQUIRE_FALSE(kernel);
    CHECK(kernel.error().message == "no such instruction");
  }
  CHECK(source_of(cache, 1) == Source::compiled);
  // A compiler that throws leaves nobody waiting for it.
  CHECK_THROWS_AS(
      (void)cache.get_or_compile(key_of(2), []() -> Result<Payload> { throw std::runtime_error("x"); }),
      std::runtime_error);
  CHECK(source_of(cache, 2) == Source::compiled);
}

TEST_CASE("cache: the modes") {
  const TemporaryFolder folder;
  { KernelCache(options_for(folder / "cache")).get_or_compile(key_of(1), compile_of(1)).value(); }

  SUBCASE("off: every request compiles, and the folder is not looked at") {
    KernelCache cache(options_for(folder / "other", CacheMode::off));
    CHECK(source_of(cache, 1) == Source::compiled);
    CHECK(source_of(cache, 1) == Source::compiled);
    CHECK(misses(cache, Miss::off) == 2);
    CHECK_FALSE(std::filesystem::exists(folder / "other"));
  }
  SUBCASE("memory: the folder is not looked at") {
    KernelCache cache(options_for(folder / "cache", CacheMode::memory));
    CHECK(source_of(cache, 1) == Source::compiled);
    CHECK(source_of(cache, 1) == Source::memory);
    CHECK(misses(cache, Miss::memory_only) == 1);
  }
  SUBCASE("refresh: compiled anew once, and replaced") {
    KernelCache cache(options_for(folder / "cache", CacheMode::refresh));
    const auto other = []() -> Result<Payload> { return payload_of(7); };
    const auto kernel = cache.get_or_compile(key_of(1), other);
    CHECK(kernel->outcome.miss == Miss::refresh);
    CHECK(cache.get_or_compile(key_of(1), other)->outcome.source == Source::memory);
    cache.flush();
    KernelCache later(options_for(folder / "cache"));
    CHECK(*later.get_or_compile(key_of(1), other)->payload == payload_of(7));
  }
  SUBCASE("offline: a miss is an error, and nothing is compiled") {
    KernelCache cache(options_for(folder / "cache", CacheMode::offline));
    CHECK(source_of(cache, 1) == Source::disk);
    int calls = 0;
    const auto kernel = cache.get_or_compile(key_of(2), compile_of(2, &calls));
    REQUIRE_FALSE(kernel);
    CHECK(kernel.error().kind == ErrorKind::environment);
    CHECK(kernel.error().message.find("(absent)") != std::string::npos);
    CHECK(calls == 0);
  }
}

TEST_CASE("cache: read-only folders are searched after the user's own, with the same checks") {
  const TemporaryFolder folder;
  for (const auto* name : {"site", "vendor"}) {
    const DiskCache disk = DiskCache::open(folder / name).value();
    REQUIRE(disk.publish(digest(key_of(1)), encoded(1)));
  }
  const DiskCache site = DiskCache::open(folder / "site").value();
  REQUIRE(site.publish(digest(key_of(2)), encoded(2)));
  REQUIRE(site.publish(digest(key_of(3)), flipped(encoded(3), 100)));
  age(site.entry_path(digest(key_of(2))), 5000);
  const auto entries_before = list(site);

  Warnings warnings;
  CacheOptions options = options_for(folder / "own");
  options.packaged = {folder / "absent", folder / "vendor", folder / "site"};
  options.warn = warnings.sink();
  KernelCache cache(options);
  CHECK(warnings.all().size() == 1);  // of the folder that is not there
  CHECK(source_of(cache, 1) == Source::disk);
  CHECK(source_of(cache, 2) == Source::disk);
  CHECK(source_of(cache, 3) == Source::compiled);
  CHECK(misses(cache, Miss::damaged) == 1);
  CHECK(source_of(cache, 4) == Source::compiled);
  cache.flush();
  // What was compiled is the user's own now; the read-only folder is as it was, uses included.
  CHECK(list(*cache.disk()).size() == 2);
  const auto entries_after = list(site);
  REQUIRE(entries_after.size() == entries_before.size());
  for (std::size_t i = 0; i < entries_after.size(); ++i)
    CHECK(entries_after[i].last_use == entries_before[i].last_use);

  // Also where the user has no folder; and never where others can write.
  options.directory.reset();
  KernelCache homeless(options);
  CHECK(source_of(homeless, 1) == Source::disk);
  REQUIRE(::chmod((folder / "site").c_str(), 0777) == 0);
  KernelCache careful(options);
  CHECK(source_of(careful, 2) == Source::compiled);
}

TEST_CASE("cache: threads that ask for the same kernel share one compilation") {
  const TemporaryFolder folder;
  KernelCache cache(options_for(folder / "cache"));
  std::atomic<int> calls = 0, good = 0;
  std::latch start(8);
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      start.arrive_and_wait();
      for (int number = 0; number < 20; ++number) {
        const auto kernel = cache.get_or_compile(key_of(number), [&]() -> Result<Payload> {
          ++calls;
          std::this_thread::sleep_for(milliseconds{2});
          return payload_of(number);
        });
        good += kernel && *kernel->payload == payload_of(number);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(calls == 20);
  CHECK(good == 160);
  cache.flush();
  const Counters counters = cache.counters();
  CHECK(counters.compiled == 20);
  CHECK(counters.memory_hits == 140);
  CHECK(counters.published == 20);
}

TEST_CASE("cache: a waiter whose patience ends compiles itself") {
  const TemporaryFolder folder;
  CacheOptions options = options_for(folder / "cache");
  options.patience = milliseconds{30};
  KernelCache cache(options), other_process(options);
  std::latch compiling(1), finish(1);
  std::thread slow([&] {
    (void)cache
        .get_or_compile(key_of(1),
                        [&]() -> Result<Payload> {
                          compiling.count_down();
                          finish.wait();
                          return payload_of(1);
                        })
        .has_value();
  });
  compiling.wait();
  CHECK(source_of(cache, 1) == Source::compiled);          // waited for the thread, then for the lock
  CHECK(source_of(other_process, 1) == Source::compiled);  // waited for the lock
  CHECK(cache.counters().impatient == 2);
  CHECK(other_process.counters().impatient == 1);
  finish.count_down();
  slow.join();
}

TEST_CASE("cache: 32 processes that meet a cold key compile it once [processes]") {
  const TemporaryFolder folder;
  const auto tally = folder / "compilations";
  int gate[2];
  REQUIRE(::pipe(gate) == 0);
  std::vector<pid_t> children;
  for (int i = 0; i < 32; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(gate[1]);
      char byte;
      (void)!::read(gate[0], &byte, 1);  // until the parent opens the gate
      int result = 1;
      {
        KernelCache cache(options_for(folder / "cache"));
        const auto kernel = cache.get_or_compile(key_of(1), [&]() -> Result<Payload> {
          const int fd = ::open(tally.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
          (void)!::write(fd, "x", 1);
          ::close(fd);
          std::this_thread::sleep_for(milliseconds{100});
          return payload_of(1);
        });
        result = kernel && *kernel->payload == payload_of(1) ? 0 : 1;
      }
      ::_exit(result);
    }
    children.push_back(child);
  }
  ::close(gate[0]);
  ::close(gate[1]);
  int good = 0;
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    good += exited_well(status);
  }
  CHECK(good == 32);
  CHECK(read_text(tally) == "x");
}

TEST_CASE("cache: a lock goes with the process that held it [processes]") {
  const TemporaryFolder folder;
  const DiskCache disk = DiskCache::open(folder / "cache").value();
  const int status = status_in_child([&] {
    const auto lock = disk.lock(digest(key_of(1)), milliseconds{0});
    ::kill(::getpid(), SIGKILL);
    return 0;
  });
  REQUIRE(WIFSIGNALED(status));
  KernelCache cache(options_for(folder / "cache"));
  CHECK(source_of(cache, 1) == Source::compiled);
  CHECK(cache.counters().impatient == 0);
}

TEST_CASE("cache: a forked copy of the cache works without its thread [processes]") {
  const TemporaryFolder folder;
  KernelCache cache(options_for(folder / "cache"));
  CHECK(source_of(cache, 1) == Source::compiled);
  cache.flush();
  const int status = status_in_child([&] {
    const auto old_kernel = cache.get_or_compile(key_of(1), compile_of(1));
    const auto new_kernel = cache.get_or_compile(key_of(2), compile_of(2));
    cache.flush();
    return old_kernel && old_kernel->outcome.source == Source::memory && new_kernel &&
                   cache.counters().published == 2
               ? 0
               : 1;
  });
  CHECK(exited_well(status));
  KernelCache later(options_for(folder / "cache"));
  CHECK(source_of(later, 2) == Source::disk);
}

TEST_CASE("cache: the memory holds no more than its cap, and keeps what is used") {
  CacheOptions options;
  options.max_memory_bytes = 20'000;
  KernelCache cache(options);
  for (int number = 0; number < 30; ++number) {
    CHECK(source_of(cache, number) == Source::compiled);
    CHECK(source_of(cache, 0) == Source::memory);
  }
  CHECK(source_of(cache, 29) == Source::memory);
  CHECK(source_of(cache, 1) == Source::compiled);
}

TEST_CASE("cache: what is compiled stays within the cap on disk") {
  const TemporaryFolder folder;
  CacheOptions options = options_for(folder / "cache");
  options.max_bytes = 50'000;
  KernelCache cache(options);
  for (int number = 0; number < 100; ++number) {
    CHECK(source_of(cache, number) == Source::compiled);
    cache.flush();
    std::uint64_t total = 0;
    for (const auto& entry : list(*cache.disk())) total += entry.bytes;
    CHECK(total <= options.max_bytes);
  }
  CHECK(cache.counters().evicted > 50);
  CHECK(list(*cache.disk()).size() > 20);
}

TEST_CASE("cache: the caller does not wait for the disk") {
  const TemporaryFolder folder;
  KernelCache cache(options_for(folder / "cache"));
  const DiskCache disk = DiskCache::open(folder / "cache").value();
  const auto kernel = cache.get_or_compile(key_of(1), compile_of(1));
  REQUIRE(kernel);
  // The lock is held until the entry is there: who waits for it finds the entry.
  auto lock = disk.lock(digest(key_of(1)), milliseconds{10'000});
  REQUIRE(lock);
  REQUIRE(lock->has_value());
  CHECK(disk.find(digest(key_of(1)), record(key_of(1))).payload != nullptr);
}

TEST_CASE("cache: a hit in memory and a hit on disk are fast") {
  const TemporaryFolder folder;
  KernelKey key = key_of(1);
  key.source.append(8000, ' ');  // a kernel of some hundred lines
  const auto compile = []() -> Result<Payload> { return payload_of(1, 200'000); };
  KernelCache cache(options_for(folder / "cache"));
  REQUIRE(cache.get_or_compile(key, compile));
  cache.flush();
  const double memory = median_microseconds(2001, [&](int) {
    if (cache.get_or_compile(key, compile)->outcome.source != Source::memory) FAIL("not from memory");
  });
  const std::string name = digest(key), key_record = record(key);
  const double disk = median_microseconds(101, [&](int) {
    if (cache.disk()->find(name, key_record).payload == nullptr) FAIL("not from disk");
  });
  // Without the sync, which is the device's own time.
  const double publishing = median_microseconds(101, [&](int) {
    const std::string file = encode_entry(key_record, payload_of(1, 200'000));
    write_text(folder / "file", file);
    std::filesystem::rename(folder / "file", folder / "entry");
  });
  MESSAGE("memory hit ", memory, " us; disk hit of 200 kB ", disk, " us; encoding and writing it ",
          publishing, " us");
  // Ten times what is promised, for slow machines and sanitizers.
  CHECK(memory < 10 * 10);
  CHECK(disk < 10 * 2000);
  CHECK(publishing < 10 * 2000);
}
