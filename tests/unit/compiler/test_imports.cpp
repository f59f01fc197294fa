// What an import brings along, and where it may lead.
#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "compiler/driver/load.h"
#include "tests/unit/compiler/compile_text.h"

namespace vicinal {
namespace {

namespace fs = std::filesystem;

// Names of what was reported for `top`, whose imports are found among `files`.
std::string report(const std::string& top, const std::map<std::string, std::string>& files) {
  testing::CompiledText compiled;
  compiled.program = syntax::load_program(
      "top", "top", top,
      [&](const std::string&, const std::string& path) -> Result<syntax::ImportedText> {
        if (!files.contains(path)) return unexpected(ErrorKind::usage, "there is no such file");
        return syntax::ImportedText{path, path, files.at(path)};
      },
      compiled.sink);
  for (const ast::Attention& block : compiled.program.files[0].attentions)
    driver::compile_variant(compiled.program, block, {}, compiled.sink);
  return compiled.names();
}

TEST_CASE("a diamond is no conflict") {
  const std::map<std::string, std::string> files = {
      {"left", "import \"base\"\nfn l(x: int) -> int = base(x)"},
      {"right", "import \"base\"\nfn r(x: int) -> int = base(x)"},
      {"base", "fn base(x: int) -> int = x"}};
  const std::string block = "attention a {\n  mask = l(q) > r(k)\n}\n";
  CHECK(report("import \"left\"\nimport \"right\"\n" + block, files).empty());
  CHECK(
      report("import \"left\"\nimport \"right\"\nimport \"base\"\nimport \"base\"\n" + block, files).empty());
}

TEST_CASE("imports are not handed on") {
  const std::map<std::string, std::string> files = {
      {"outer", "import \"inner\"\nfn outer(x: int) -> int = inner(x)"},
      {"inner", "fn inner(x: int) -> int = x"}};
  CHECK(report("import \"outer\"\nattention a {\n  mask = outer(q) > k\n}\n", files).empty());
  CHECK(report("import \"outer\"\nattention a {\n  mask = inner(q) > k\n}\n", files) == "unknown-name");
}

TEST_CASE("a name means what its own file says") {
  const std::map<std::string, std::string> files = {
      {"one", "fn helper(x: int) -> int = x\nfn one(x: int) -> int = helper(x)"},
      {"two", "import \"one\"\nfn two(x: int) -> int = one(x)"}};
  CHECK(report(
            "import \"two\"\nfn helper(x: bool) -> bool = x\nattention a {\n  mask = helper(two(q) > k)\n}\n",
            files)
            .empty());
}

TEST_CASE("the size limit is for all files together") {
  std::string half = "fn f(x: int) -> int = x\n#";
  half.resize(syntax::kMaxSourceBytes / 2 + 1, 'x');
  std::string top = "import \"half\"\nattention a {\n}\n#";
  top.resize(syntax::kMaxSourceBytes / 2, 'x');
  CHECK(report(top, {{"half", half}}).find("source-too-large") != std::string::npos);
}

TEST_CASE("a link does not lead out of the folder") {
  const fs::path folder =
      fs::temp_directory_path() / fs::path("vicinal-imports-" + std::to_string(::getpid()));
  fs::create_directories(folder / "inside");
  const auto write = [&](const fs::path& path, const std::string& text) { std::ofstream(path) << text; };
  write(folder / "outside.attn", "fn secret(x: int) -> int = x\n");
  write(folder / "inside/top.attn", "import \"link.attn\"\nattention a {\n  mask = secret(q) > k\n}\n");
  fs::create_symlink(folder / "outside.attn", folder / "inside/link.attn");
  const auto errors = [&](const std::vector<fs::path>& import_paths) {
    diagnostics::Sink sink;
    REQUIRE(driver::load_file((folder / "inside/top.attn").string(), import_paths, sink).has_value());
    return sink.error_count();
  };
  CHECK(errors({}) == 1);
  CHECK(errors({folder}) == 0);
  fs::remove_all(folder);
}

}  // namespace
}  // namespace vicinal
