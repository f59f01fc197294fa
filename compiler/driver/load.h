// Specs from files: reads the top file and resolves imports inside the folders that it may reach.
#pragma once

#include <filesystem>

#include "compiler/syntax/program.h"

namespace vicinal::driver {

// Imports are relative to the importing file, never absolute, and after symbolic links lead into `root` or
// one of `import_paths`.
// Diagnostics show a file under `root` as one under `shown_root`, the way in which the top spec was named.
syntax::ImportResolver file_resolver(const std::filesystem::path& root,
                                     const std::filesystem::path& shown_root,
                                     std::vector<std::filesystem::path> import_paths);

// Errors (usage) when the file cannot be read; what is wrong inside it goes to the sink. `path` "-" reads
// standard input, from where nothing can be imported but through import_paths.
Result<syntax::Program> load_file(const std::string& path,
                                  const std::vector<std::filesystem::path>& import_paths,
                                  diagnostics::Sink& sink);

}  // namespace vicinal::driver
