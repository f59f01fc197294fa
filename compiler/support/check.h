// VICINAL_ASSERT: a broken promise of ours, never a user's mistake. It stops the program with the place, the
// condition and what the code knew.
#pragma once

#include <string_view>

namespace vicinal::support {
[[noreturn]] void assertion_failed(const char* file, int line, const char* condition,
                                   std::string_view detail);
}  // namespace vicinal::support

#define VICINAL_ASSERT(condition, detail)                                                           \
  do {                                                                                              \
    if (!(condition)) ::vicinal::support::assertion_failed(__FILE__, __LINE__, #condition, detail); \
  } while (false)
