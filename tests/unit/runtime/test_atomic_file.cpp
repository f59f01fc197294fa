// Files that are there whole or not at all, and what a process leaves that ends while it writes them.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <thread>

#include "runtime/files/atomic_file.h"
#include "tests/unit/runtime/temporary_folder.h"

namespace vicinal::files {
namespace {

using test::count_files;
using test::read_text;
using test::TemporaryFolder;
using test::write_text;

// The exit code of a child that does this; what it remembers is its own.
int exit_in_child(const std::function<int()>& act) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(act());
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_CASE("atomic file: the target is the old one until the commit, and the new one after it") {
  const TemporaryFolder folder;
  const auto target = folder / "x";
  write_text(target, "old");
  {
    AtomicFile file = AtomicFile::create(target).value();
    REQUIRE(file.append("new"));
    CHECK(read_text(target) == "old");
    AtomicFile moved = std::move(file);
    REQUIRE(moved.commit(false));
    CHECK(read_text(target) == "new");
  }
  CHECK(count_files(folder.path()) == 1);
  { REQUIRE(AtomicFile::create(target).value().append("newer")); }  // never committed
  CHECK(read_text(target) == "new");
  CHECK(count_files(folder.path()) == 1);
}

TEST_CASE("atomic file: a process that abandons its temporaries leaves none, and what was there") {
  const TemporaryFolder folder;
  write_text(folder / "a", "old");
  CHECK(exit_in_child([&] {
          remember_temporaries();
          AtomicFile a = AtomicFile::create(folder / "a").value(),
                     b = AtomicFile::create(folder / "b").value(),
                     done = AtomicFile::create(folder / "done").value();
          const bool written =
              a.append("new") && b.append("new") && done.append("done") && done.commit(false);
          abandon_temporaries();
          ::_exit(written ? 0 : 1);  // at once: destructors would wait
          return 0;
        }) == 0);
  CHECK(read_text(folder / "a") == "old");
  CHECK(read_text(folder / "done") == "done");
  CHECK(count_files(folder.path()) == 2);
}

TEST_CASE("atomic file: after the temporaries are abandoned, none is made and none is committed") {
  const TemporaryFolder folder;
  for (const bool commits : {false, true}) {
    CAPTURE(commits);
    CHECK(exit_in_child([&] {
            remember_temporaries();
            AtomicFile begun = AtomicFile::create(folder / "begun").value();
            abandon_temporaries();
            std::thread([&] {
              if (commits) (void)begun.commit(false);
              if (!commits) (void)AtomicFile::create(folder / "late");
              ::_exit(1);  // neither comes back
            }).detach();
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            ::_exit(0);
            return 0;
          }) == 0);
    CHECK(count_files(folder.path()) == 0);
  }
}

TEST_CASE("atomic file: without being asked, nothing is remembered") {
  const TemporaryFolder folder;
  CHECK(exit_in_child([&] {
          AtomicFile file = AtomicFile::create(folder / "x").value();
          abandon_temporaries();
          return file.append("x") && file.commit(false) ? 0 : 1;
        }) == 0);
  CHECK(read_text(folder / "x") == "x");
}

}  // namespace
}  // namespace vicinal::files
