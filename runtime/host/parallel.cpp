#include <algorithm>
#include <atomic>
#include <thread>

#include "runtime/host/parallel.h"

namespace vicinal::host {

unsigned default_threads() {
  return std::max(1u, std::thread::hardware_concurrency());
}

void parallel_for(std::int64_t count, unsigned threads,
                  const std::function<void(std::int64_t, unsigned)>& body) {
  std::atomic<std::int64_t> next{0};
  const auto work = [&](unsigned thread) {
    for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(i, thread);
  };
  std::vector<std::jthread> helpers;
  for (unsigned t = 1; t < threads && t < count; ++t) helpers.emplace_back(work, t);
  work(0);
}

void parallel_for(std::int64_t count, unsigned threads, const std::function<void(std::int64_t)>& body) {
  parallel_for(count, threads, [&](std::int64_t i, unsigned) { body(i); });
}

}  // namespace vicinal::host
