#include "tests/golden/runner.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "compiler/support/text.h"

namespace vicinal::golden {

namespace fs = std::filesystem;

fs::path folder(const std::string& name) {
  return fs::path(VICINAL_SOURCE_DIR) / "tests/golden" / name;
}

std::vector<fs::path> specs(const std::string& name) {
  std::vector<fs::path> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder(name))) {
    if (entry.is_directory())
      found.push_back(entry.path() / "main.attn");
    else if (entry.path().extension() == ".attn")
      found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

void compare(const fs::path& spec, const std::string& extension, const std::string& actual) {
  const fs::path path = fs::path(spec).replace_extension(extension);
  CAPTURE(path.string());
  if (std::getenv("VICINAL_UPDATE_GOLDENS") != nullptr) {
    std::ofstream(path, std::ios::binary) << actual;
    return;
  }
  const auto expected = support::read_file(path.string());
  CHECK_MESSAGE(expected.has_value(), "nothing is written down yet: run with VICINAL_UPDATE_GOLDENS=1");
  if (expected) CHECK(actual == *expected);
}

void run(const std::string& name, const std::string& extension,
         const std::function<std::string(const fs::path&)>& render) {
  const std::vector<fs::path> all = specs(name);
  REQUIRE(!all.empty());
  for (const fs::path& spec : all) compare(spec, extension, render(spec));
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder(name))) {
    if (entry.path().extension() != extension) continue;
    CAPTURE(entry.path().string());
    CHECK_MESSAGE(fs::exists(fs::path(entry.path()).replace_extension(".attn")),
                  "the spec of this expectation is gone");
  }
}

}  // namespace vicinal::golden
