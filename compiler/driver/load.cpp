#include "compiler/driver/load.h"

#include <fmt/format.h>

#include <fstream>
#include <iostream>
#include <iterator>

namespace vicinal::driver {
namespace fs = std::filesystem;
namespace {

bool inside(const fs::path& file, const fs::path& folder) {
  const fs::path relative = file.lexically_relative(folder);
  return !relative.empty() && *relative.begin() != "..";
}

// At most one byte more than a spec may have: enough to see that it is too large.
Result<std::string> read_spec(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return unexpected(ErrorKind::usage, "it is a folder");
  std::ifstream in(path, std::ios::binary);
  if (!in)
    return unexpected(ErrorKind::usage,
                      fs::exists(path, ignored) ? "it cannot be read" : "there is no such file");
  std::string text(syntax::kMaxSourceBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  return text;
}

}  // namespace

syntax::ImportResolver file_resolver(const fs::path& root, const fs::path& shown_root,
                                     std::vector<fs::path> import_paths) {
  std::vector<fs::path> roots = {root};
  for (fs::path& p : import_paths) roots.push_back(std::move(p));
  std::error_code ignored;
  for (fs::path& p : roots) p = fs::weakly_canonical(p.empty() ? fs::path(".") : p, ignored);
  return [roots, shown_root](const std::string& importer,
                             const std::string& path) -> Result<syntax::ImportedText> {
    const fs::path written(path);
    if (path.empty() || written.is_absolute())
      return unexpected(ErrorKind::usage, "the path is not relative",
                        "write it relative to the importing file");
    std::vector<fs::path> candidates = {fs::path(importer).parent_path() / written};
    for (std::size_t i = 1; i < roots.size(); ++i) candidates.push_back(roots[i] / written);
    std::string why = "there is no such file";
    for (const fs::path& candidate : candidates) {
      std::error_code error;
      const fs::path file = fs::canonical(candidate, error);
      if (error) continue;
      bool allowed = false;
      for (const fs::path& folder : roots) allowed = allowed || inside(file, folder);
      if (!allowed)
        return unexpected(ErrorKind::usage, "it lies outside the folder of the top spec",
                          "move it there, or name its folder with --import-path");
      Result<std::string> text = read_spec(file);
      if (text)
        return syntax::ImportedText{file.string(),
                                    inside(file, roots[0])
                                        ? (shown_root / file.lexically_relative(roots[0])).string()
                                        : file.string(),
                                    *std::move(text)};
      why = text.error().message;
    }
    return unexpected(ErrorKind::usage, why);
  };
}

Result<syntax::Program> load_file(const std::string& path, const std::vector<fs::path>& import_paths,
                                  diagnostics::Sink& sink) {
  if (path == "-") {
    std::string text;
    char buffer[4096];
    while (std::cin.read(buffer, sizeof buffer),
           std::cin.gcount() > 0 && text.size() <= syntax::kMaxSourceBytes)
      text.append(buffer, static_cast<std::size_t>(std::cin.gcount()));
    return syntax::load_program(
        "-", "<stdin>", std::move(text),
        import_paths.empty() ? nullptr : file_resolver(import_paths[0], import_paths[0], import_paths), sink);
  }
  Result<std::string> text = read_spec(path);
  if (!text)
    return unexpected(ErrorKind::usage,
                      fmt::format("cannot read the spec `{}`: {}", path, text.error().message));
  std::error_code ignored;
  const fs::path file = fs::weakly_canonical(path, ignored);
  return syntax::load_program(file.string(), path, *std::move(text),
                              file_resolver(file.parent_path(), fs::path(path).parent_path(), import_paths),
                              sink);
}

}  // namespace vicinal::driver
