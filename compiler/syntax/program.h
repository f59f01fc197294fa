// A spec with all that it imports.
#pragma once

#include <vicinal/result.h>

#include <functional>
#include <map>
#include <memory>

#include "compiler/diagnostics/sink.h"
#include "compiler/syntax/ast.h"

namespace vicinal::syntax {

inline constexpr std::size_t kMaxSourceBytes = 1 << 20;

// What an import path leads to. Two paths to one file have the same `id`.
struct ImportedText {
  std::string id, display_name, text;
};
// Given the importing file's id and the path as written; the error's message completes "cannot import `x`:
// ...".
using ImportResolver =
    std::function<Result<ImportedText>(const std::string& importer, const std::string& path)>;

// A function and the file whose names it sees.
struct FunctionRef {
  std::uint32_t file = 0, function = 0;
  friend auto operator<=>(const FunctionRef&, const FunctionRef&) = default;
};

struct Program {
  source::SourceMap sources;
  std::vector<ast::File> files;  // by the source map's number; 0 is the top spec
  std::vector<std::map<std::string, FunctionRef, std::less<>>> visible;  // functions that a file can name

  const ast::Function& function(FunctionRef f) const { return files[f.file].functions[f.function]; }
};

// Lexes and parses `text` and, through `resolver` (may be null: imports fail), what it imports.
Program load_program(std::string id, std::string display_name, std::string text,
                     const ImportResolver& resolver, diagnostics::Sink& sink);

}  // namespace vicinal::syntax
