#include "runtime/host/processors.h"

namespace vicinal::host {
namespace {

bool is_in(int processor, const cpu_set_t& set) {
  return processor >= 0 && processor < CPU_SETSIZE && CPU_ISSET(static_cast<unsigned>(processor), &set);
}

}  // namespace

void Processors::take_one() {
  const std::lock_guard guard(lock_);
  int here = ::sched_getcpu();
  cpu_set_t allowed;
  if (is_in(here, taken_) && ::sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    cpu_set_t others;
    CPU_AND(&others, &allowed, &taken_);
    CPU_XOR(&others, &allowed, &others);
    if (CPU_COUNT(&others) != 0 && ::sched_setaffinity(0, sizeof others, &others) == 0) {
      here = ::sched_getcpu();
      ::sched_setaffinity(0, sizeof allowed, &allowed);
    }
  }
  if (here >= 0 && here < CPU_SETSIZE) CPU_SET(static_cast<unsigned>(here), &taken_);
}

}  // namespace vicinal::host
