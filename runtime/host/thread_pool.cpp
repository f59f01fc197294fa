#include "runtime/host/thread_pool.h"

#include <unistd.h>

#include <memory>
#include <system_error>

namespace vicinal::host {

ThreadPool& ThreadPool::process() {
  // In a child of fork() its threads cannot be waited for.
  struct End {
    void operator()(ThreadPool* pool) const {
      if (!pool->inherited()) delete pool;
    }
  };
  static const std::unique_ptr<ThreadPool, End> pool(new ThreadPool());
  return *pool;
}

ThreadPool::ThreadPool() : owner_(::getpid()) {}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard guard(lock_);
    ending_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

bool ThreadPool::inherited() const {
  return owner_ != ::getpid();
}

void ThreadPool::run(unsigned slots, void (*work)(void* argument, unsigned slot), void* argument) {
  if (inherited()) {
    for (unsigned slot = 0; slot < slots; ++slot) work(argument, slot);
    return;
  }
  Call call{work, argument, slots};
  call.processors.take_one();
  {
    const std::lock_guard guard(lock_);
    add_threads(slots - 1);
    call.next = calls_;
    calls_ = &call;
  }
  for (unsigned slot = 1; slot < slots; ++slot) wake_.notify_one();
  work(argument, 0);
  std::unique_lock guard(lock_);
  // What no thread has come for is done here.
  while (call.taken < call.slots) {
    const unsigned slot = take_slot(call);
    guard.unlock();
    work(argument, slot);
    guard.lock();
  }
  call.done.wait(guard, [&] { return call.working == 0; });
}

void ThreadPool::serve() {
  std::unique_lock guard(lock_);
  for (;;) {
    wake_.wait(guard, [&] { return ending_ || calls_ != nullptr; });
    if (ending_) return;
    Call& call = *calls_;
    const unsigned slot = take_slot(call);
    ++call.working;
    guard.unlock();
    call.processors.take_one();
    call.work(call.argument, slot);
    guard.lock();
    // Said with the lock in hand: without it the call may be gone.
    if (--call.working == 0) call.done.notify_one();
  }
}

// The last one takes the call off the list.
unsigned ThreadPool::take_slot(Call& call) {
  const unsigned slot = call.taken++;
  if (call.taken == call.slots) {
    Call** at = &calls_;
    while (*at != &call) at = &(*at)->next;
    *at = call.next;
  }
  return slot;
}

// Fewer where the system gives no more; then callers have more to do.
void ThreadPool::add_threads(unsigned wanted) {
  if (threads_.size() >= wanted || ending_) return;
  threads_.reserve(wanted);
  try {
    while (threads_.size() < wanted) threads_.emplace_back([this] { serve(); });
  } catch (const std::system_error&) {
  }
}

}  // namespace vicinal::host
