#include "runtime/cache/background_queue.h"

#include <unistd.h>

#include <system_error>

namespace vicinal::cache {

// A fork copies the object but not its thread. The copy works without one.
bool BackgroundQueue::is_forked_copy() const {
  return owner_ != 0 && owner_ != ::getpid();
}

BackgroundQueue::~BackgroundQueue() {
  if (is_forked_copy()) {
    (void)thread_.release();
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_) thread_->join();
}

void BackgroundQueue::post(std::function<void()> work) {
  if (is_forked_copy()) return work();
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(work);
    if (!thread_) {
      owner_ = ::getpid();
      try {
        thread_ = std::make_unique<std::thread>([this] { run(); });
      } catch (const std::system_error&) {  // no more threads to be had
        queue_.pop_back();
        owner_ = 0;
      }
    }
    if (thread_) {
      changed_.notify_all();
      return;
    }
  }
  work();
}

void BackgroundQueue::flush() {
  if (is_forked_copy()) return;
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return queue_.empty() && !busy_; });
}

void BackgroundQueue::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    {
      const std::function<void()> work = std::move(queue_.front());
      queue_.pop_front();
      busy_ = true;
      lock.unlock();
      work();
    }  // and what it held is released before anybody is told
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

}  // namespace vicinal::cache
