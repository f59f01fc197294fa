// SHA-256 through libcrypto.
#pragma once

#include <string>
#include <string_view>

namespace vicinal::support {

// 64 lower-case hexadecimal digits.
std::string sha256_hex(std::string_view bytes);

}  // namespace vicinal::support
