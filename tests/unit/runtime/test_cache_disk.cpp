// What can happen to a folder and to the files in it: every kind of damage, refusal and death.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <chrono>
#include <csignal>
#include <random>
#include <thread>

#include "runtime/cache/maintenance.h"
#include "runtime/files/atomic_file.h"
#include "tests/unit/runtime/cache_fixture.h"

using namespace vicinal;
using namespace vicinal::cache;
using namespace vicinal::test;

namespace {

#ifdef SYS_rename
constexpr long kRename = SYS_rename;
#else
constexpr long kRename = SYS_renameat;
#endif

CacheOptions options_for(const std::filesystem::path& directory) {
  CacheOptions options;
  options.directory = directory;
  options.patience = std::chrono::milliseconds{200};
  return options;
}

// Whatever is wrong with the folder, the kernel is there, and is compiled once at most per process.
int compiles_and_warns(CacheOptions options, Miss expected, std::size_t warnings_expected) {
  Warnings warnings;
  options.warn = warnings.sink();
  int calls = 0;
  {
    KernelCache cache(options);
    const auto first = cache.get_or_compile(key_of(1), compile_of(1, &calls));
    if (!first || *first->payload != payload_of(1)) return 1;
    if (first->outcome.source != Source::compiled || first->outcome.miss != expected) return 2;
    const auto second = cache.get_or_compile(key_of(1), compile_of(1, &calls));
    if (!second || second->outcome.source != Source::memory || calls != 1) return 3;
    // Not even a second kernel brings a second warning.
    if (!cache.get_or_compile(key_of(2), compile_of(2))) return 4;
  }
  return warnings.all().size() == warnings_expected ? 0 : 5;
}

std::size_t count_temporaries(const DiskCache& disk) {
  std::size_t count = 0;
  std::error_code error;
  for (const auto& file : std::filesystem::recursive_directory_iterator(disk.kernels(), error)) {
    count += file.path().native().ends_with(files::kTemporarySuffix);
  }
  return count;
}

Lookup find(const DiskCache& disk, int number) {
  return disk.find(digest(key_of(number)), record(key_of(number)));
}

}  // namespace

TEST_CASE("cache disk: what is published is found, private to the user") {
  const TemporaryFolder folder;
  const DiskCache disk = DiskCache::open(folder / "a/b/cache").value();
  CHECK(find(disk, 1).miss == Miss::absent);
  const std::string name = digest(key_of(1));
  REQUIRE(disk.publish(name, encoded(1)));
  CHECK(*find(disk, 1).payload == payload_of(1));
  CHECK(disk.entry_path(name) == folder.path() / "a/b/cache/kernels" / name.substr(0, 2) / (name + ".entry"));
  const auto mode = [](const std::filesystem::path& path) {
    struct stat status;
    REQUIRE(::stat(path.c_str(), &status) == 0);
    return status.st_mode & 07777;
  };
  CHECK(mode(disk.entry_path(name)) == 0600);
  for (const auto* made : {"a", "a/b", "a/b/cache", "a/b/cache/kernels"}) CHECK(mode(folder / made) == 0700);
  CHECK(count_temporaries(disk) == 0);
}

TEST_CASE("cache disk: a damaged entry is compiled again and replaced") {
  const TemporaryFolder folder;
  const std::string good = encoded(1);
  const auto size = good.size();
  const DiskCache disk = DiskCache::open(folder / "cache").value();
  const auto path = disk.entry_path(digest(key_of(1)));
  std::vector<std::string> damaged = {
      "",         good.substr(0, 8),      good.substr(0, size / 2), good.substr(0, size - 1),
      good + "x", std::string(size, '\0')};
  for (const std::size_t at : {std::size_t{0}, std::size_t{9}, std::size_t{13}, std::size_t{20},
                               std::size_t{60}, size / 2, size - 80, size - 1}) {
    damaged.push_back(flipped(good, at));
  }
  for (const std::string& bytes : damaged) {
    REQUIRE(disk.publish(digest(key_of(1)), bytes));
    Warnings warnings;
    CacheOptions options = options_for(folder / "cache");
    options.warn = warnings.sink();
    {
      KernelCache cache(options);
      const auto kernel = cache.get_or_compile(key_of(1), compile_of(1));
      REQUIRE(kernel);
      CHECK(kernel->outcome.miss == Miss::damaged);
      CHECK(*kernel->payload == payload_of(1));
    }
    REQUIRE(warnings.all().size() == 1);
    CHECK(warnings.all()[0].find(path.native()) != std::string::npos);
    CHECK(read_text(path) == good);
  }
}

TEST_CASE("cache disk: an intact entry under another key's name is not used") {
  const TemporaryFolder folder;
  const DiskCache disk = DiskCache::open(folder / "cache").value();
  REQUIRE(disk.publish(digest(key_of(1)), encoded(2)));
  CHECK(find(disk, 1).miss == Miss::damaged);
  CHECK(find(disk, 1).payload == nullptr);
}

TEST_CASE("cache disk: links, folders and pipes in an entry's place are not followed and not waited for") {
  const TemporaryFolder folder;
  const DiskCache disk = DiskCache::open(folder / "cache").value();
  const std::string name = digest(key_of(1));
  const auto path = disk.entry_path(name);
  REQUIRE(disk.publish(name, encoded(1)));
  std::filesystem::rename(path, folder / "elsewhere");
  std::filesystem::create_symlink(folder / "elsewhere", path);
  CHECK(find(disk, 1).miss == Miss::damaged);
  std::filesystem::remove(path);
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  CHECK(find(disk, 1).miss == Miss::damaged);
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  CHECK(find(disk, 1).miss == Miss::damaged);
  // Cannot be replaced, and is no more than a warning.
  CHECK(compiles_and_warns(options_for(folder / "cache"), Miss::damaged, 2) == 0);
}

TEST_CASE("cache disk: a folder that is not safe is refused") {
  const TemporaryFolder folder;
  const auto refused = [&] {
    return compiles_and_warns(options_for(folder / "cache"), Miss::directory_refused, 1) == 0;
  };
  std::filesystem::create_directory(folder / "real");
  std::filesystem::create_directory_symlink(folder / "real", folder / "cache");
  CHECK(refused());
  CHECK(count_files(folder / "real") == 0);
  std::filesystem::remove(folder / "cache");

  write_text(folder / "cache", "a file");
  CHECK(refused());
  std::filesystem::remove(folder / "cache");

  std::filesystem::create_directory(folder / "cache");
  for (const mode_t mode : {0777, 0770, 0702}) {
    REQUIRE(::chmod((folder / "cache").c_str(), mode) == 0);
    CHECK(refused());
  }
  CHECK(count_files(folder / "cache") == 0);
  REQUIRE(::chmod((folder / "cache").c_str(), 0700) == 0);
  if (::geteuid() != 0) {
    MESSAGE("skipped: a folder of another user, which only root can make");
    return;
  }
  REQUIRE(::chown((folder / "cache").c_str(), 65534, 65534) == 0);
  CHECK(refused());
}

TEST_CASE("cache disk: a folder may be shared with a group if the user says so") {
  const TemporaryFolder folder;
  CacheOptions options = options_for(folder / "cache");
  options.shared_with_group = true;
  CHECK(compiles_and_warns(options, Miss::absent, 0) == 0);
  struct stat status;
  REQUIRE(::stat((folder / "cache/kernels").c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 02770);
  REQUIRE(::stat(DiskCache::open(folder / "cache", Trust::group)->entry_path(digest(key_of(1))).c_str(),
                 &status) == 0);
  CHECK((status.st_mode & 07777) == 0660);
  // Without the user's word it is refused, and with it the world stays outside.
  CHECK(compiles_and_warns(options_for(folder / "cache"), Miss::directory_refused, 1) == 0);
  REQUIRE(::chmod((folder / "cache").c_str(), 0777) == 0);
  CHECK(compiles_and_warns(options, Miss::directory_refused, 1) == 0);
}

TEST_CASE("cache disk: no folder, no home, and paths that are too long") {
  CacheOptions nowhere;
  CHECK(compiles_and_warns(nowhere, Miss::memory_only, 0) == 0);
  const TemporaryFolder folder;
  CHECK(compiles_and_warns(options_for(folder / std::string(300, 'x')), Miss::directory_refused, 1) == 0);
  CHECK(compiles_and_warns(options_for("/dev/null/cache"), Miss::directory_refused, 1) == 0);
  CHECK(compiles_and_warns(options_for("/proc/vicinal"), Miss::directory_refused, 1) == 0);
  // The folder's own path fits, and its entries' paths do not.
  auto path = folder.path();
  while (path.native().size() + 201 < 4090) path /= std::string(199, 'x');
  path /= std::string(4090 - path.native().size() - 1, 'x');
  CacheOptions options = options_for(path);
  Warnings warnings;
  options.warn = warnings.sink();
  KernelCache cache(options);
  const auto kernel = cache.get_or_compile(key_of(1), compile_of(1));
  REQUIRE(kernel);
  CHECK(*kernel->payload == payload_of(1));
  cache.flush();
  CHECK_FALSE(warnings.all().empty());
}

TEST_CASE("cache disk: a folder that can only be read serves what it has [processes]") {
  const TemporaryFolder folder;
  std::filesystem::permissions(folder.path(), std::filesystem::perms(0755));
  const int status = status_as_ordinary_user(folder.path(), [&] {
    CacheOptions options = options_for(folder / "cache");
    if (!KernelCache(options).get_or_compile(key_of(3), compile_of(3))) return 10;
    const DiskCache disk = DiskCache::open(folder / "cache").value();
    for (const auto& path :
         {disk.entry_path(digest(key_of(3))).parent_path(), disk.kernels(), disk.locks(), disk.root()}) {
      if (::chmod(path.c_str(), 0500) != 0) return 11;
    }
    int calls = 0;
    const auto kernel = KernelCache(options).get_or_compile(key_of(3), compile_of(3, &calls));
    if (!kernel || kernel->outcome.source != Source::disk || calls != 0) return 12;
    // One warning for the lock, one for the publishing.
    return compiles_and_warns(options, Miss::absent, 2);
  });
  CHECK_MESSAGE(exited_well(status), "status ", status);
}

TEST_CASE("cache disk: a home that cannot be written is no more than a warning [processes]") {
  const TemporaryFolder folder;
  REQUIRE(::chmod(folder.path().c_str(), 0555) == 0);
  const int status = status_as_ordinary_user(folder.path(), [&] {
    return compiles_and_warns(options_for(folder / "cache"), Miss::directory_refused, 1);
  });
  CHECK_MESSAGE(exited_well(status), "status ", status);
}

TEST_CASE("cache disk: a program with changed rights keeps kernels in memory only [processes]") {
  if (::geteuid() != 0) {
    MESSAGE("skipped: only root can change its effective user");
    return;
  }
  const TemporaryFolder folder;
  const int status = status_in_child([&] {
    if (::seteuid(65534) != 0) return 10;
    return compiles_and_warns(options_for(folder / "cache"), Miss::directory_refused, 1);
  });
  CHECK_MESSAGE(exited_well(status), "status ", status);
  CHECK(count_files(folder.path()) == 0);
}

TEST_CASE("cache disk: whatever call of the system fails, the kernel is there [processes]") {
  struct Trouble {
    const char* what;
    Strike strike;
    int error;
    std::size_t warnings;
    Miss miss = Miss::absent;
  };
  const Trouble troubles[] = {
      {"a full device, at the write", {SYS_write}, ENOSPC, 1},
      {"a full quota, at the sync", {SYS_fsync}, EDQUOT, 1},
      {"a failing device, at the sync", {SYS_fsync}, EIO, 1},
      {"a failing device, at the read", {SYS_read}, EIO, 1, Miss::damaged},
      {"no rename", {kRename}, EXDEV, 1},
      {"no locks", {SYS_flock}, ENOLCK, 1},
      {"no locks and no new files", {SYS_openat, O_CREAT}, EROFS, 2},
  };
  for (const Trouble& trouble : troubles) {
    CAPTURE(trouble.what);
    const TemporaryFolder folder;
    const DiskCache disk = DiskCache::open(folder / "cache").value();
    if (trouble.miss == Miss::damaged) REQUIRE(disk.publish(digest(key_of(1)), encoded(1)));
    const int status = status_in_child([&] {
      if (!arm({trouble.strike}, SECCOMP_RET_ERRNO | static_cast<unsigned>(trouble.error))) return 77;
      return compiles_and_warns(options_for(folder / "cache"), trouble.miss, trouble.warnings);
    });
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
      MESSAGE("skipped: no seccomp filters here");
      return;
    }
    CHECK_MESSAGE(exited_well(status), "status ", status);
    CHECK(count_temporaries(disk) == 0);
    CHECK(verify(disk, false).damaged.empty());
  }
}

TEST_CASE("cache disk: a file that hits a size limit is not published [processes]") {
  const TemporaryFolder folder;
  const DiskCache disk = DiskCache::open(folder / "cache").value();
  const int status = status_in_child([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{500, 500};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 10;
    return compiles_and_warns(options_for(folder / "cache"), Miss::absent, 1);
  });
  CHECK_MESSAGE(exited_well(status), "status ", status);
  CHECK(count_temporaries(disk) == 0);
  CHECK(list(disk).empty());
}

TEST_CASE("cache disk: a writer killed at any step leaves the old entry, the new one or none [processes]") {
  struct Step {
    const char* what;
    Strike strike;
    bool leaves_temporary;
  };
  const Step steps[] = {
      {"before its file is made", {SYS_openat, O_CREAT}, false},
      {"with an empty file", {SYS_write}, true},
      {"before the sync", {SYS_fsync}, true},
      {"before the rename", {kRename}, true},
      {"after the rename", {SYS_openat, O_DIRECTORY}, false},
  };
  for (const bool replaces : {false, true}) {
    for (const Step& step : steps) {
      CAPTURE(step.what);
      const TemporaryFolder folder;
      const DiskCache disk = DiskCache::open(folder / "cache").value();
      const std::string name = digest(key_of(1));
      // The same key with another payload, to tell old from new.
      const std::string old_entry = encode_entry(record(key_of(1)), payload_of(7));
      if (replaces) REQUIRE(disk.publish(name, old_entry));
      const int status = status_in_child([&] {
        if (!arm({step.strike}, SECCOMP_RET_KILL_PROCESS)) return 77;
        return disk.publish(name, encoded(1)) ? 0 : 1;
      });
      if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        MESSAGE("skipped: no seccomp filters here");
        return;
      }
      REQUIRE(WIFSIGNALED(status));
      const bool renamed = step.strike.flags == O_DIRECTORY;
      const Lookup lookup = find(disk, 1);
      if (renamed) {
        CHECK(*lookup.payload == payload_of(1));
      } else if (replaces) {
        CHECK(*lookup.payload == payload_of(7));
      } else {
        CHECK(lookup.miss == Miss::absent);
      }
      CHECK(count_temporaries(disk) == (step.leaves_temporary ? 1 : 0));
      REQUIRE(disk.publish(name, encoded(1)));
      CHECK(*find(disk, 1).payload == payload_of(1));
    }
  }
}

TEST_CASE("cache disk: a writer killed in the middle of its file leaves no entry [processes]") {
  for (const rlim_t size : {1, 100, 4096, 100'000}) {
    const TemporaryFolder folder;
    const DiskCache disk = DiskCache::open(folder / "cache").value();
    const int status = status_in_child([&] {
      const rlimit limit{size, size};  // whoever writes on beyond it is killed by SIGXFSZ
      const rlimit no_core{0, 0};
      if (::setrlimit(RLIMIT_FSIZE, &limit) != 0 || ::setrlimit(RLIMIT_CORE, &no_core) != 0) return 10;
      return disk.publish(digest(key_of(1)), encoded(1, 200'000)) ? 0 : 1;
    });
    REQUIRE(WIFSIGNALED(status));
    CHECK(find(disk, 1).miss == Miss::absent);
    CHECK(count_temporaries(disk) == 1);
  }
}

TEST_CASE("cache disk: writers killed at random moments never leave a damaged entry [processes]") {
  const TemporaryFolder folder;
  const DiskCache disk = DiskCache::open(folder / "cache").value();
  std::mt19937 random(3);
  for (int round = 0; round < 15; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (int i = 0;; ++i) (void)disk.publish(digest(key_of(i % 8)), encoded(i % 8, 50'000)).has_value();
    }
    std::this_thread::sleep_for(std::chrono::microseconds{500 + random() % 20'000});
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    REQUIRE(WIFSIGNALED(status));
    CHECK(verify(disk, false).damaged.empty());
  }
  CHECK_FALSE(list(disk).empty());
}

TEST_CASE("cache disk: a folder removed under a running program is made again") {
  const TemporaryFolder folder;
  KernelCache cache(options_for(folder / "cache"));
  REQUIRE(cache.get_or_compile(key_of(1), compile_of(1)));
  cache.flush();
  std::filesystem::remove_all(folder / "cache");
  REQUIRE(cache.get_or_compile(key_of(2), compile_of(2)));
  cache.flush();
  CHECK(find(*cache.disk(), 2).payload != nullptr);
}
