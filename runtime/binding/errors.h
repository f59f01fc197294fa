// How the errors of binding are worded.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vicinal/result.h>
#include <cstdint>
#include <string>
#include <vector>

namespace vicinal::runtime {

// What does not suit the variant: an error of kind spec.
template <class... Args>
Unexpected wrong(const char* format, const Args&... arguments) {
  return unexpected(ErrorKind::spec, fmt::format(fmt::runtime(format), arguments...));
}

inline std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace vicinal::runtime
