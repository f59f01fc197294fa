#include "tests/support/gallery.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "compiler/driver/load.h"

namespace vicinal::testing {
namespace {

namespace fs = std::filesystem;

fs::path specs_folder() {
  const char* given = std::getenv("VICINAL_SPECS_DIR");
  return given != nullptr ? fs::absolute(given).lexically_normal() : fs::path(VICINAL_SOURCE_DIR) / "specs";
}

}  // namespace

std::vector<GalleryBlock> gallery() {
  std::vector<fs::path> files;
  const fs::path specs = specs_folder();
  for (const fs::path& folder : {specs, specs.parent_path() / "tests" / "specs"}) {
    std::error_code none;
    for (const auto& entry : fs::recursive_directory_iterator(folder, none))
      if (entry.path().extension() == ".attn") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::vector<GalleryBlock> blocks;
  for (const fs::path& file : files) {
    diagnostics::Sink sink;
    const syntax::Program program = driver::load_file(file.string(), {specs}, sink).value();
    for (const ast::Attention& block : program.files[0].attentions) {
      Spec::Options options;
      options.block = block.name.text;
      options.import_paths = {specs.string()};
      blocks.push_back(
          {file.stem().string() + ":" + block.name.text, Spec::from_file(file.string(), options).value()});
    }
  }
  return blocks;
}

}  // namespace vicinal::testing
