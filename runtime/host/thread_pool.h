// Threads that wait for work, where there is no TBB to keep them.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime/host/processors.h"

namespace vicinal::host {

class ThreadPool {
 public:
  // Its threads end with the process, or when the library that this is in is unloaded. A child of fork() has
  // none of them, and computes alone.
  static ThreadPool& process();

  ThreadPool();
  ~ThreadPool();

  // As run_slots() has it. There are never more threads than the largest call so far could use.
  void run(unsigned slots, void (*work)(void* argument, unsigned slot), void* argument);

 private:
  // On its caller's stack; listed as long as slots wait in it for a thread.
  struct Call {
    void (*work)(void*, unsigned);
    void* argument;
    unsigned slots;
    unsigned taken = 1;    // the first is the caller's
    unsigned working = 0;  // threads of the pool
    Call* next = nullptr;
    std::condition_variable done = {};
    Processors processors = {};
  };

  bool inherited() const;
  void serve();
  void add_threads(unsigned wanted);
  unsigned take_slot(Call& call);

  const pid_t owner_;  // the process whose threads they are
  std::mutex lock_;    // of all that follows, and of every call
  std::condition_variable wake_;
  Call* calls_ = nullptr;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace vicinal::host
