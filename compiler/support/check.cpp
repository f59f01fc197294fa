#include "compiler/support/check.h"

#include <cstdio>
#include <cstdlib>

namespace vicinal::support {

void assertion_failed(const char* file, int line, const char* condition, std::string_view detail) {
  std::fprintf(stderr,
               "vicinal: internal error: %s:%d: %s\n  %.*s\n"
               "This is a bug in vicinal. Please report it with the spec and the command line.\n",
               file, line, condition, static_cast<int>(detail.size()), detail.data());
  std::fflush(stderr);
  std::_Exit(70);
}

}  // namespace vicinal::support
