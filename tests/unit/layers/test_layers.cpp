// Reads every #include of ours and holds it against the table of layers: what a folder may use is written
// once.
#include <doctest/doctest.h>

#include <filesystem>
#include <map>
#include <sstream>
#include <vector>

#include "compiler/support/text.h"

namespace vicinal {
namespace {

namespace fs = std::filesystem;

// A folder, and the folders it may include beside itself and <vicinal/*.h>. The longest name that fits
// counts.
const std::map<std::string, std::vector<std::string>> kLayers = {
    {"compiler/support", {}},
    {"compiler/source", {"compiler/support"}},
    {"compiler/diagnostics", {"compiler/source", "compiler/support"}},
    {"compiler/syntax", {"compiler/diagnostics", "compiler/source", "compiler/support"}},
    {"compiler/ir", {"compiler/support"}},
    {"compiler/check",
     {"compiler/ir", "compiler/syntax", "compiler/diagnostics", "compiler/source", "compiler/support"}},
    {"compiler/passes", {"compiler/analysis", "compiler/ir", "compiler/support"}},
    {"compiler/analysis", {"compiler/ir", "compiler/support", "templates"}},
    {"compiler/emit", {"compiler/passes", "compiler/analysis", "compiler/ir", "compiler/support"}},
    {"compiler/driver", {"compiler"}},
    {"runtime/include", {}},
    {"runtime/files", {"compiler/support"}},
    {"runtime/cache", {"runtime/files", "compiler/support"}},
    {"runtime/cuda", {"runtime/host", "compiler/support"}},
    {"runtime/binding", {"compiler/ir", "compiler/analysis", "compiler/support", "templates"}},
    {"runtime/host", {"runtime/files", "compiler/support"}},
    {"runtime/plan",
     {"runtime/binding", "runtime/host", "compiler/analysis", "compiler/ir", "compiler/support",
      "templates"}},
    {"runtime/cpu",
     {"runtime/plan", "runtime/binding", "runtime/host", "compiler/emit", "compiler/ir", "compiler/support",
      "templates"}},
    {"runtime/cpu/llvm", {"runtime/cpu", "compiler/emit", "compiler/ir", "compiler/support"}},
    {"runtime", {"runtime", "compiler", "templates/embed"}},
    {"templates/vicinal", {}},
    {"templates/embed", {}},
    {"cli", {"runtime", "compiler", "templates/embed"}},
};

bool below(const std::string& path, const std::string& folder) {
  return path.starts_with(folder + "/");
}

// The layer of a file, or an empty name.
std::string layer_of(const std::string& path) {
  std::string best;
  for (const auto& [folder, uses] : kLayers)
    if (below(path, folder) && folder.size() > best.size()) best = folder;
  return best;
}

// What an include names, from the root of the repository; empty when it is not ours.
std::string target_of(const std::string& line) {
  const std::size_t begin = line.find_first_of("\"<"), end = line.find_last_of("\">");
  if (line.rfind("#include", 0) != 0 || begin == std::string::npos || end <= begin) return "";
  const std::string name = line.substr(begin + 1, end - begin - 1);
  if (line[begin] == '<') return name.starts_with("vicinal/") ? "runtime/include/" + name : "";
  return name.starts_with("vicinal/") ? "templates/" + name : name;
}

bool allowed(const std::string& from, const std::string& target) {
  if (below(target, "runtime/include")) return !below(from, "templates");
  const std::string layer = layer_of(from);
  if (below(target, layer)) return true;
  for (const std::string& folder : kLayers.at(layer))
    if (below(target, folder)) return true;
  return false;
}

TEST_CASE("every include goes down the layers") {
  const fs::path root(VICINAL_SOURCE_DIR);
  std::size_t includes = 0;
  for (const char* top : {"compiler", "runtime", "templates", "cli"}) {
    if (!fs::exists(root / top)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
      const std::string extension = entry.path().extension().string();
      if (extension != ".h" && extension != ".cpp" && extension != ".cuh" && extension != ".def") continue;
      const std::string file = fs::relative(entry.path(), root).generic_string();
      CAPTURE(file);
      CHECK(!layer_of(file).empty());
      std::istringstream lines(support::read_file(entry.path().string()).value_or(""));
      for (std::string line; std::getline(lines, line);) {
        const std::string target = target_of(line);
        if (target.empty() || layer_of(file).empty()) continue;
        ++includes;
        CHECK_MESSAGE(fs::exists(root / target), "there is no ", target);
        CHECK_MESSAGE(allowed(file, target), file, " may not include ", target);
      }
    }
  }
  CHECK(includes > 200);
}

}  // namespace
}  // namespace vicinal
