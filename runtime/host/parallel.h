// Work spread over the processors.
#pragma once

#include <cstdint>
#include <functional>

namespace vicinal::host {

// One per processor.
unsigned default_threads();

// body(i) for i in [0, count), on that many threads; an element runs once, in no fixed order.
void parallel_for(std::int64_t count, unsigned threads, const std::function<void(std::int64_t)>& body);
// The same with the number of the thread, below `threads`.
void parallel_for(std::int64_t count, unsigned threads,
                  const std::function<void(std::int64_t, unsigned thread)>& body);

}  // namespace vicinal::host
