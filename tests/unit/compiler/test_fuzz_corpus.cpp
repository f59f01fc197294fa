// The fuzzer's corpus, and every prefix of its files: compiled, and nothing happens.
#include <doctest/doctest.h>

#include <filesystem>

#include "compiler/support/text.h"
#include "tests/fuzz/compile_bytes.h"

namespace vicinal {
namespace {

TEST_CASE("the corpus of the fuzzer is survived, whole and cut anywhere") {
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(VICINAL_SOURCE_DIR) + "/tests/fuzz/corpus")) {
    CAPTURE(entry.path().string());
    const std::string bytes = support::read_file(entry.path().string()).value_or("");
    fuzz::compile_bytes(bytes);
    for (std::size_t end = 0; end < bytes.size(); end += 7)
      fuzz::compile_bytes(std::string_view(bytes).substr(0, end));
    ++files;
  }
  CHECK(files > 10);
}

}  // namespace
}  // namespace vicinal
