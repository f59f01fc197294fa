// Every spec of the gallery, and every row of the list of variants, compiles as it stands: no error, no
// warning, and an IR that survives printing and reading back.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "compiler/diagnostics/render.h"
#include "compiler/driver/compile.h"
#include "compiler/driver/load.h"
#include "compiler/ir/text.h"
#include "compiler/ir/verify.h"
#include "compiler/support/text.h"

namespace vicinal {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> specs_below(const std::string& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(VICINAL_SOURCE_DIR) / folder))
    if (entry.path().extension() == ".attn") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

void survives_printing(const ir::Module& module) {
  const auto broken = ir::verify(module);
  CHECK_MESSAGE(!broken, broken.value_or(""));
  const std::string text = ir::print(module);
  const Result<ir::Module> again = ir::parse(text);
  REQUIRE_MESSAGE(again.has_value(), (again ? "" : again.error().message));
  CHECK(ir::print(*again) == text);
}

// Compiles every block; remarks are fine, anything louder is not.
void compiles(const fs::path& file) {
  CAPTURE(file.string());
  diagnostics::Sink sink;
  const Result<syntax::Program> program =
      driver::load_file(file.string(), {fs::path(VICINAL_SOURCE_DIR) / "specs"}, sink);
  REQUIRE(program.has_value());
  check::check_functions(*program, sink);
  std::vector<driver::Variant> variants;
  for (const ast::Attention& block : program->files[0].attentions)
    if (auto variant = driver::compile_variant(*program, block, {}, sink))
      variants.push_back(*std::move(variant));

  std::vector<diagnostics::Diagnostic> loud;
  for (const diagnostics::Diagnostic& d : sink.sorted())
    if (d.level() != diagnostics::Level::remark) loud.push_back(d);
  CHECK_MESSAGE(loud.empty(), diagnostics::render_text(loud, program->sources, false));
  CHECK(variants.size() == program->files[0].attentions.size());
  for (const driver::Variant& v : variants) {
    CAPTURE(v.checked.module.name);
    survives_printing(v.checked.module);
    survives_printing(v.optimized);
    survives_printing(v.specialized.grid.module);
    if (v.specialized.context) survives_printing(v.specialized.context->module);
  }
}

// "m14_streaming_sinks.attn" and "attention s5_alibi" hold the rows M14 and S5.
void collect_row(std::string_view name, std::set<std::string>& rows) {
  const std::size_t end = std::min(name.find('_'), name.size());
  if (end > 1 && std::string_view("mns").find(name[0]) != std::string_view::npos &&
      std::all_of(name.begin() + 1, name.begin() + static_cast<std::ptrdiff_t>(end),
                  [](char c) { return c >= '0' && c <= '9'; }))
    rows.emplace(name.substr(0, end));
}

TEST_CASE("the gallery compiles") {
  const auto files = specs_below("specs");
  REQUIRE(files.size() > 30);
  for (const fs::path& file : files) compiles(file);
}

TEST_CASE("the list of variants compiles") {
  const auto files = specs_below("tests/specs");
  REQUIRE(files.size() > 10);
  for (const fs::path& file : files) compiles(file);
}

TEST_CASE("no row of the list of variants is left out") {
  std::set<std::string> rows;
  for (const fs::path& file : specs_below("tests/specs/variants")) {
    collect_row(file.stem().string(), rows);
    diagnostics::Sink sink;
    const Result<syntax::Program> program =
        driver::load_file(file.string(), {fs::path(VICINAL_SOURCE_DIR) / "specs"}, sink);
    REQUIRE(program.has_value());
    for (const ast::Attention& block : program->files[0].attentions) collect_row(block.name.text, rows);
  }
  const auto require = [&](char letter, int last, std::set<int> elsewhere) {
    for (int row = 1; row <= last; ++row) {
      const std::string name = fmt::format("{}{}", letter, row);
      CAPTURE(name);
      CHECK((rows.contains(name) || elsewhere.contains(row)));
    }
  };
  require('m', 52, {});
  require('n', 12, {});
  require('s', 29, {28});  // logits are an option of the run, not of the variant
}

TEST_CASE("the gallery's index names every spec") {
  const auto index = support::read_file(std::string(VICINAL_SOURCE_DIR) + "/specs/README.md");
  REQUIRE(index.has_value());
  for (const fs::path& file : specs_below("specs")) {
    const std::string name = fs::relative(file, fs::path(VICINAL_SOURCE_DIR) / "specs").generic_string();
    CAPTURE(name);
    CHECK(index->find("(" + name + ")") != std::string::npos);
  }
}

}  // namespace
}  // namespace vicinal
