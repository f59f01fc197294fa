#include "runtime/host/parallel.h"

#include <thread>

#ifdef VICINAL_TBB
#include <tbb/parallel_for.h>
#else
#include "runtime/host/thread_pool.h"
#endif

namespace vicinal::host {

unsigned default_threads() {
  static const unsigned processors = std::max(1u, std::thread::hardware_concurrency());
  return processors;
}

void run_slots(unsigned slots, void (*work)(void* argument, unsigned slot), void* argument) {
  if (slots == 1) return work(argument, 0);
#ifdef VICINAL_TBB
  // A slot is a task: a thread that waits within one may take another up, whose memory is its own.
  tbb::parallel_for(
      0u, slots, [&](unsigned slot) { work(argument, slot); }, tbb::simple_partitioner());
#else
  ThreadPool::process().run(slots, work, argument);
#endif
}

}  // namespace vicinal::host
