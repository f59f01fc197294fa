#include "compiler/support/hash.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include "compiler/support/check.h"

namespace vicinal::support {

std::string sha256_hex(std::string_view bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  const int ok = EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha256(), nullptr);
  VICINAL_ASSERT(ok == 1, "libcrypto has no SHA-256");
  std::string hex;
  for (unsigned i = 0; i < size; ++i) fmt::format_to(std::back_inserter(hex), "{:02x}", digest[i]);
  return hex;
}

}  // namespace vicinal::support
