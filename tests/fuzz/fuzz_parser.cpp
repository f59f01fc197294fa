// libFuzzer's entry. Run as `fuzz_parser -dict=tests/fuzz/attn.dict -timeout=10 WORK tests/fuzz/corpus`,
// where WORK is a folder for what it finds.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/compile_bytes.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vicinal::fuzz::compile_bytes({reinterpret_cast<const char*>(data), size});
  return 0;
}
