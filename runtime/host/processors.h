// Which processors the threads of a call run on.
#pragma once

#include <sched.h>

#include <mutex>

namespace vicinal::host {

// A woken thread often finds itself where its caller runs: they then take turns for many milliseconds before
// the scheduler moves one, and a call is only as fast as with one thread less. So each looks where the others
// are.
class Processors {
 public:
  Processors() { CPU_ZERO(&taken_); }

  // The calling thread goes on on a processor that none of the call's other threads has, if it may run on
  // one, and says so. Where it may run is afterwards what it was.
  void take_one();

 private:
  std::mutex lock_;
  cpu_set_t taken_;
};

}  // namespace vicinal::host
