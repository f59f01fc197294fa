#include "runtime/cache/maintenance.h"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "runtime/cache/archive.h"
#include "tests/unit/runtime/cache_fixture.h"

using namespace vicinal;
using namespace vicinal::cache;
using namespace vicinal::test;

namespace {

constexpr long kHour = 3600, kDay = 24 * kHour;

Lookup find(const DiskCache& disk, int number) {
  return disk.find(digest(key_of(number)), record(key_of(number)));
}

bool is_there(const DiskCache& disk, int number) {
  return std::filesystem::exists(disk.entry_path(digest(key_of(number))));
}

// Entries 0 to count - 1, last used so many hours ago.
DiskCache filled(const TemporaryFolder& folder, int count) {
  DiskCache disk = DiskCache::open(folder / "cache").value();
  for (int i = 0; i < count; ++i) {
    REQUIRE(disk.publish(digest(key_of(i)), encoded(i)));
    age(disk.entry_path(digest(key_of(i))), i * kHour);
  }
  return disk;
}

}  // namespace

TEST_CASE("cache list: most recently used first, and nothing but entries") {
  const TemporaryFolder folder;
  const DiskCache disk = filled(folder, 3);
  write_text(disk.kernels() / "README", "not an entry");
  write_text(disk.entry_path(digest(key_of(0))).parent_path() / "short.entry", "not an entry");
  const auto entries = list(disk);
  REQUIRE(entries.size() == 3);
  for (int i = 0; i < 3; ++i) CHECK(entries[static_cast<std::size_t>(i)].digest == digest(key_of(i)));
  CHECK(entries[0].bytes == encoded(0).size());
}

TEST_CASE("cache inspect: an entry by the first digits of its digest") {
  const TemporaryFolder folder;
  const DiskCache disk = filled(folder, 3);
  const auto details = inspect(disk, digest(key_of(1)).substr(0, 10));
  REQUIRE(details);
  CHECK(details->key == key_of(1));
  CHECK(details->payload == payload_of(1));
  CHECK(inspect(disk, "").error().message.find("several entries") == 0);
  CHECK(inspect(disk, "xyz").error().kind == ErrorKind::usage);
  REQUIRE(disk.publish(digest(key_of(2)), encoded(1)));
  CHECK(inspect(disk, digest(key_of(2))).error().kind == ErrorKind::mismatch);
}

TEST_CASE("cache verify: damage is told, and removed only if asked") {
  const TemporaryFolder folder;
  const DiskCache disk = filled(folder, 4);
  REQUIRE(disk.publish(digest(key_of(1)), flipped(encoded(1), 200)));
  REQUIRE(disk.publish(digest(key_of(2)), encoded(3)));
  auto report = verify(disk, false);
  CHECK(report.intact == 2);
  REQUIRE(report.damaged.size() == 2);
  CHECK_FALSE(report.damaged[0].removed);
  CHECK(list(disk).size() == 4);
  report = verify(disk, true);
  CHECK(report.damaged[0].removed);
  CHECK(list(disk).size() == 2);
  CHECK(verify(disk, true).damaged.empty());
}

TEST_CASE("cache prune: the least recently used go first, until the rest fits") {
  const TemporaryFolder folder;
  const DiskCache disk = filled(folder, 10);
  // Reading is using, whatever the filesystem does with access times.
  CHECK(find(disk, 9).payload != nullptr);
  const auto report = prune(disk, {5 * encoded(0).size(), {}});
  REQUIRE(report);
  CHECK(report->evicted == 5);
  CHECK(report->bytes_before == 10 * encoded(0).size());
  CHECK(report->bytes_after == 5 * encoded(0).size());
  for (const int kept : {0, 1, 2, 3, 9}) CHECK(is_there(disk, kept));
  CHECK(prune(disk, {}).value().evicted == 0);
}

TEST_CASE("cache prune: what has not been used for too long goes, too") {
  const TemporaryFolder folder;
  const DiskCache disk = filled(folder, 10);
  CHECK(prune(disk, {0, std::chrono::hours{5}}).value().evicted == 5);
  CHECK(is_there(disk, 4));
  CHECK_FALSE(is_there(disk, 5));
  // A last use in the future, after a clock was set back, is no reason to go.
  age(disk.entry_path(digest(key_of(0))), -30 * kDay);
  CHECK(prune(disk, {0, std::chrono::hours{24}}).value().evicted == 0);
}

TEST_CASE("cache prune: leftovers go after days, not while a writer may be alive") {
  const TemporaryFolder folder;
  const DiskCache disk = filled(folder, 1);
  const auto fan_out = disk.entry_path(digest(key_of(0))).parent_path();
  const auto old_temporary = fan_out / ".0123.tmp", young_temporary = fan_out / ".4567.tmp";
  const auto future_temporary = fan_out / ".89ab.tmp";
  for (const auto& path : {old_temporary, young_temporary, future_temporary}) write_text(path, "half an ent");
  age(old_temporary, 3 * kDay);
  age(young_temporary, kDay);
  age(future_temporary, -3 * kDay);
  auto held = disk.lock("held", {}).value();
  { (void)disk.lock("idle", {}).has_value(); }
  { (void)disk.lock("young", {}).has_value(); }
  age(disk.locks() / "held", 3 * kDay);
  age(disk.locks() / "idle", 3 * kDay);
  CHECK(prune(disk, {}).value().leftovers == 2);
  CHECK_FALSE(std::filesystem::exists(old_temporary));
  CHECK(std::filesystem::exists(young_temporary));
  CHECK(std::filesystem::exists(future_temporary));
  CHECK(std::filesystem::exists(disk.locks() / "held"));
  CHECK_FALSE(std::filesystem::exists(disk.locks() / "idle"));
  CHECK(std::filesystem::exists(disk.locks() / "young"));
}

TEST_CASE("cache lock: whoever waited for a lock file that was removed takes the new one") {
  const TemporaryFolder folder;
  const DiskCache disk = DiskCache::open(folder / "cache").value();
  auto first = std::make_unique<FileLock>(std::move(*disk.lock("key", {}).value()));
  std::optional<FileLock> waited;
  std::thread waiter([&] { waited.emplace(std::move(*disk.lock("key", std::chrono::seconds{10}).value())); });
  std::this_thread::sleep_for(std::chrono::milliseconds{20});
  std::filesystem::remove(disk.locks() / "key");
  first.reset();
  waiter.join();
  REQUIRE(waited);
  CHECK_FALSE(disk.lock("key", {}).value().has_value());  // the waiter's lock is the one that counts
}

TEST_CASE("cache prune: is due at first, and an hour after the last") {
  const TemporaryFolder folder;
  const DiskCache disk = filled(folder, 1);
  CHECK(is_prune_due(disk));
  REQUIRE(prune(disk, {}));
  CHECK_FALSE(is_prune_due(disk));
  age(disk.root() / "last-prune", 2 * kHour);
  CHECK(is_prune_due(disk));
}

TEST_CASE("cache prune, verify, clear: safe while others read and write") {
  const TemporaryFolder folder;
  const DiskCache disk = DiskCache::open(folder / "cache").value();
  std::atomic<bool> stop = false;
  std::atomic<int> wrong = 0, hits = 0;
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    for (int i = 0; !stop; ++i) wrong += !disk.publish(digest(key_of(i % 4)), encoded(i % 4, 20'000));
  });
  for (int reader = 0; reader < 2; ++reader) {
    threads.emplace_back([&] {
      for (int i = 0; !stop; ++i) {
        const Lookup lookup = find(disk, i % 4);
        hits += lookup.payload != nullptr;
        wrong += lookup.payload ? *lookup.payload != payload_of(i % 4, 20'000) : lookup.miss != Miss::absent;
      }
    });
  }
  for (int round = 0; round < 100 || (hits == 0 && round < 10'000); ++round) {
    wrong += !prune(disk, {30'000, {}});
    wrong += !verify(disk, true).damaged.empty();
    if (round % 10 == 0) clear(disk);
  }
  stop = true;
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(hits > 0);
}

TEST_CASE("cache archive: entries travel to another machine") {
  const TemporaryFolder folder;
  const DiskCache here = filled(folder, 5);
  const DiskCache there = DiskCache::open(folder / "there").value();
  const auto archive = folder / "kernels.archive";
  CHECK(export_archive(here, archive).value().entries == 5);

  const auto untrusted = import_archive(there, archive, false);
  REQUIRE_FALSE(untrusted);
  CHECK(untrusted.error().kind == ErrorKind::usage);
  CHECK(untrusted.error().message.find("5 entries") != std::string::npos);
  CHECK(list(there).empty());

  CHECK(import_archive(there, archive, true).value().entries == 5);
  for (int i = 0; i < 5; ++i) CHECK(*find(there, i).payload == payload_of(i));
  // The same entries make the same archive.
  CHECK(export_archive(there, folder / "again").value().entries == 5);
  CHECK(read_text(folder / "again") == read_text(archive));
  CHECK(export_archive(there, folder / "some", {digest(key_of(2))}).value().entries == 1);
}

TEST_CASE("cache archive: no damage is imported") {
  const TemporaryFolder folder;
  const DiskCache here = filled(folder, 2);
  const DiskCache there = DiskCache::open(folder / "there").value();
  const auto archive = folder / "kernels.archive";
  REQUIRE(export_archive(here, archive));
  const std::string good = read_text(archive);
  const auto refused = [&](const std::string& bytes) {
    write_text(archive, bytes);
    const auto report = import_archive(there, archive, true);
    return !report && list(there).empty();
  };
  for (std::size_t i = 0; i < good.size(); i += 7) {
    CHECK(refused(flipped(good, i)));
    CHECK(refused(good.substr(0, i)));
  }
  CHECK(refused(good.substr(0, good.size() - 1)));
  CHECK(refused(good + "x"));
  CHECK(refused(""));
  CHECK_FALSE(import_archive(there, folder / "absent", true));
  // A damaged entry does not get into an archive either.
  REQUIRE(here.publish(digest(key_of(1)), flipped(encoded(1), 200)));
  const auto report = export_archive(here, archive);
  CHECK(report.value().entries == 1);
  CHECK(report.value().skipped == 1);
}

TEST_CASE("cache clear: removes every entry") {
  const TemporaryFolder folder;
  const DiskCache disk = filled(folder, 3);
  CHECK(clear(disk) == 3);
  CHECK(list(disk).empty());
  CHECK(clear(disk) == 0);
}
