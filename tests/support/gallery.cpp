#include "tests/support/gallery.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <regex>
#include <sstream>

#include "compiler/driver/load.h"
#include "compiler/support/text.h"

namespace vicinal::testing {
namespace {

namespace fs = std::filesystem;

fs::path specs_folder() {
  const char* given = std::getenv("VICINAL_SPECS_DIR");
  return given != nullptr ? fs::absolute(given).lexically_normal() : fs::path(VICINAL_SOURCE_DIR) / "specs";
}

std::vector<fs::path> files_with_specs(const fs::path& specs) {
  std::vector<fs::path> files;
  for (const fs::path& folder : {specs, specs.parent_path() / "tests" / "specs"}) {
    std::error_code none;
    for (const auto& entry : fs::recursive_directory_iterator(folder, none))
      if (entry.path().extension() == ".attn") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<std::string> blocks_of(const fs::path& file, const fs::path& specs) {
  diagnostics::Sink sink;
  std::vector<std::string> names;
  const syntax::Program program = driver::load_file(file.string(), {specs}, sink).value();
  for (const ast::Attention& block : program.files[0].attentions) names.push_back(block.name.text);
  return names;
}

// The line with `learnable` at the end of its declaration, before a comment; other lines as they are.
std::string with_learnable(const std::string& line) {
  static const std::regex declaration(R"(^(\s*(?:param|input)\s+\w+:\s*float\b[^#]*?)\s*(#.*)?$)");
  std::smatch parts;
  if (!std::regex_match(line, parts, declaration) || line.find(" learnable") != std::string::npos)
    return line;
  return parts[1].str() + " learnable " + parts[2].str();
}

std::string all_learnable(const std::string& text) {
  std::istringstream lines(text);
  std::string result;
  for (std::string line; std::getline(lines, line);) result += with_learnable(line) + '\n';
  return result;
}

}  // namespace

std::vector<GalleryBlock> gallery() {
  const fs::path specs = specs_folder();
  std::vector<GalleryBlock> blocks;
  for (const fs::path& file : files_with_specs(specs)) {
    for (const std::string& name : blocks_of(file, specs)) {
      Spec::Options options;
      options.block = name;
      options.import_paths = {specs.string()};
      blocks.push_back({file.stem().string() + ":" + name, Spec::from_file(file.string(), options).value()});
    }
  }
  return blocks;
}

std::vector<GalleryBlock> learnable_gallery() {
  const fs::path specs = specs_folder();
  std::vector<GalleryBlock> blocks;
  for (const fs::path& file : files_with_specs(specs)) {
    const std::string text = all_learnable(support::read_file(file.string()).value());
    for (const std::string& name : blocks_of(file, specs)) {
      Spec::Options options;
      options.block = name;
      options.resolver = [&](const std::string& path) -> Result<std::string> {
        return support::read_file((specs / path).string()).value();
      };
      blocks.push_back({file.stem().string() + ":" + name, Spec::from_string(text, options).value()});
    }
  }
  return blocks;
}

}  // namespace vicinal::testing
