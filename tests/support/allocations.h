// Counts what the process allocates, whoever asks for it.
#pragma once

#include <cstdint>

namespace vicinal::testing {

// False under the sanitizers, which have an allocator of their own.
bool counts_allocations();
// Calls of malloc() and its like so far, of all threads.
std::int64_t allocations();

}  // namespace vicinal::testing
