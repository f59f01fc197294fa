// A library with a pool of its own, for a test that unloads it.
#include <atomic>

#include "runtime/host/parallel.h"

extern "C" __attribute__((visibility("default"))) int vicinal_test_count(int count, unsigned threads) {
  std::atomic<int> done = 0;
  vicinal::host::parallel_for(count, threads, [&](std::int64_t) { ++done; });
  return done;
}
