// Work that nobody waits for, done in order by one thread, which starts with the first piece of it.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace vicinal::cache {

class BackgroundQueue {
 public:
  BackgroundQueue() = default;
  BackgroundQueue(const BackgroundQueue&) = delete;
  BackgroundQueue& operator=(const BackgroundQueue&) = delete;
  ~BackgroundQueue();  // finishes what is queued

  void post(std::function<void()> work);
  void flush();  // returns when everything posted before it is done

 private:
  void run();
  bool is_forked_copy() const;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  bool busy_ = false;
  bool stopping_ = false;
  std::unique_ptr<std::thread> thread_;
  pid_t owner_ = 0;  // the process that has the thread
};

}  // namespace vicinal::cache
