// Work spread over the processors, on threads that the process keeps.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <type_traits>

namespace vicinal::host {

// One per processor.
unsigned default_threads();

// work(argument, slot) for every slot below `slots`, as many at a time as there are threads for: of the
// process' pool, or of TBB where the library was built with it. The calling thread is one of them. Allocates
// nothing once a call of as many slots has been made; may be called by several threads at once, and from
// within.
void run_slots(unsigned slots, void (*work)(void* argument, unsigned slot), void* argument);

// body(i), or body(i, slot), for i in [0, count), on so many threads; an element runs once, in no fixed
// order. What runs with one slot, below `threads`, runs one after another, so that memory by slot is nobody
// else's. The body does not throw.
template <class Body>
void parallel_for(std::int64_t count, unsigned threads, Body&& body) {
  struct Elements {
    std::remove_reference_t<Body>& body;
    std::int64_t count;
    alignas(64) std::atomic<std::int64_t> next{0};
  } elements{body, count};
  const auto work = [](void* argument, unsigned slot) {
    Elements& of = *static_cast<Elements*>(argument);
    for (std::int64_t i; (i = of.next.fetch_add(1, std::memory_order_relaxed)) < of.count;) {
      if constexpr (std::is_invocable_v<Body&, std::int64_t, unsigned>)
        of.body(i, slot);
      else
        of.body(i);
    }
  };
  const auto slots = std::clamp<std::int64_t>(count, 1, std::max(1u, threads));
  run_slots(static_cast<unsigned>(slots), work, &elements);
}

}  // namespace vicinal::host
