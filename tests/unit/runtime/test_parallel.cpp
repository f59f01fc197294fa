#include <dlfcn.h>
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "runtime/host/parallel.h"
#include "runtime/host/thread_pool.h"

namespace vicinal::host {
namespace {

// By their numbers, not how many: a thread of an earlier test that has been joined stays listed for a moment.
std::set<std::string> threads_of_process() {
  std::set<std::string> threads;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task"))
    threads.insert(task.path().filename());
  return threads;
}

std::ptrdiff_t threads_besides(const std::set<std::string>& before) {
  return std::ranges::count_if(threads_of_process(),
                               [&](const std::string& thread) { return !before.contains(thread); });
}

bool none_stays_besides(const std::set<std::string>& before) {
  for (int i = 0; i < 1000 && threads_besides(before) != 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return threads_besides(before) == 0;
}

// Sums [0, count) in memory by slot, which is nobody else's.
std::int64_t sum_by_slot(std::int64_t count, unsigned threads) {
  std::vector<std::int64_t> sums(threads);
  parallel_for(count, threads, [&](std::int64_t i, unsigned slot) { sums[slot] += i; });
  return std::accumulate(sums.begin(), sums.end(), std::int64_t{0});
}

TEST_CASE("every element runs once, on any number of threads") {
  for (const unsigned threads : {1u, 2u, 3u, 8u})
    for (const std::int64_t count : {0, 1, 2, 7, 1000}) {
      CAPTURE(threads);
      CAPTURE(count);
      std::vector<int> runs(static_cast<std::size_t>(count));
      parallel_for(count, threads, [&](std::int64_t i) { ++runs[static_cast<std::size_t>(i)]; });
      CHECK(std::ranges::count(runs, 1) == count);
      CHECK(sum_by_slot(count, threads) == count * (count - 1) / 2);
    }
}

TEST_CASE("several threads call at once, and from within") {
  std::vector<std::int64_t> sums(6);
  std::vector<std::thread> callers;
  for (std::int64_t& sum : sums)
    callers.emplace_back([&sum] {
      for (int i = 0; i < 50; ++i) {
        std::vector<std::int64_t> inner(5);
        parallel_for(5, 3, [&](std::int64_t n) { inner[static_cast<std::size_t>(n)] = sum_by_slot(100, 4); });
        sum += std::accumulate(inner.begin(), inner.end(), std::int64_t{0});
      }
    });
  for (std::thread& caller : callers) caller.join();
  for (const std::int64_t sum : sums) CHECK(sum == 50 * 5 * 4950);
}

TEST_CASE("a pool keeps its threads from call to call, and ends them") {
  const std::set<std::string> before = threads_of_process();
  {
    ThreadPool pool;
    const auto nothing = [](void*, unsigned) {};
    for (int i = 0; i < 100; ++i) {
      pool.run(4, nothing, nullptr);
      CHECK(threads_besides(before) == 3);
    }
    pool.run(2, nothing, nullptr);
    CHECK(threads_besides(before) == 3);
  }
  CHECK(none_stays_besides(before));
}

TEST_CASE("slots of a call run at the same time") {
  ThreadPool pool;
  struct Meeting {
    std::mutex lock;
    std::condition_variable all;
    unsigned arrived = 0;
  } meeting;
  // Each waits for all others: with fewer threads this would not end.
  pool.run(
      4,
      [](void* argument, unsigned) {
        auto& m = *static_cast<Meeting*>(argument);
        std::unique_lock guard(m.lock);
        if (++m.arrived == 4) m.all.notify_all();
        m.all.wait(guard, [&] { return m.arrived == 4; });
      },
      &meeting);
  CHECK(meeting.arrived == 4);
}

// The sanitizer's own thread does not survive there.
#if !defined(__SANITIZE_THREAD__)
TEST_CASE("a child of fork() computes alone, and ends") {
  ThreadPool& pool = ThreadPool::process();
  const auto count = [](void* argument, unsigned slot) { static_cast<int*>(argument)[slot] += 1; };
  int slots[3] = {};
  pool.run(3, count, slots);
  const pid_t child = ::fork();
  if (child == 0) {
    pool.run(3, count, slots);
    ::_exit(slots[0] == 2 && slots[1] == 2 && slots[2] == 2 ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}
#endif

TEST_CASE("a library that is unloaded leaves no thread behind") {
  const std::set<std::string> before = threads_of_process();
  void* const library = ::dlopen(VICINAL_POOL_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  REQUIRE_MESSAGE(library != nullptr, ::dlerror());
  const auto count = reinterpret_cast<int (*)(int, unsigned)>(::dlsym(library, "vicinal_test_count"));
  REQUIRE(static_cast<bool>(count));
  CHECK(count(1000, 5) == 1000);
  CHECK(threads_besides(before) == 4);
  CHECK(::dlclose(library) == 0);
  CHECK(::dlopen(VICINAL_POOL_LIBRARY, RTLD_NOW | RTLD_NOLOAD) == nullptr);
  CHECK(none_stays_besides(before));
}

}  // namespace
}  // namespace vicinal::host
