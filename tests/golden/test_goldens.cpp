// What each step of the compiler makes of the specs beside it.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <set>
#include <sstream>

#include "compiler/diagnostics/render.h"
#include "compiler/driver/compile.h"
#include "compiler/driver/gradient_text.h"
#include "compiler/driver/load.h"
#include "compiler/emit/cuda/backward_source.h"
#include "compiler/emit/cuda/kernel_choice.h"
#include "compiler/emit/cuda/kernel_source.h"
#include "compiler/emit/gradient_sites.h"
#include "compiler/ir/text.h"
#include "compiler/support/text.h"
#include "compiler/syntax/lexer.h"
#include "tests/golden/runner.h"

namespace vicinal {
namespace {

namespace fs = std::filesystem;

// A spec and everything that was said about it.
struct Compiled {
  diagnostics::Sink sink;
  syntax::Program program;
  std::vector<driver::Variant> variants;

  std::string messages() const { return diagnostics::render_text(sink.sorted(), program.sources, false); }
};

// A first line such as "# dynamic: gain window" makes these params dynamic.
check::Bindings bindings_of(std::string_view text) {
  check::Bindings bindings;
  constexpr std::string_view mark = "# dynamic: ";
  if (!text.starts_with(mark)) return bindings;
  std::istringstream words(std::string(text.substr(mark.size(), text.find('\n') - mark.size())));
  for (std::string word; words >> word;) bindings.dynamic.insert(word);
  return bindings;
}

std::string without(std::string text, const std::string& part) {
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at))
    text.erase(at, part.size());
  return text;
}

Compiled compile(const fs::path& spec, const passes::Observer& observe = nullptr) {
  Compiled result;
  auto program = driver::load_file(spec.string(), {}, result.sink);
  REQUIRE(program.has_value());
  result.program = *std::move(program);
  const check::Bindings bindings = bindings_of(result.program.sources.text(0));
  if (result.program.files[0].attentions.empty()) check::check_functions(result.program, result.sink);
  for (const ast::Attention& block : result.program.files[0].attentions)
    if (auto variant = driver::compile_variant(result.program, block, bindings, result.sink, observe))
      result.variants.push_back(*std::move(variant));
  return result;
}

TEST_CASE("golden: tokens") {
  golden::run("tokens", ".txt", [](const fs::path& spec) {
    diagnostics::Sink sink;
    source::SourceMap sources;
    sources.add(spec.filename().string(), support::read_file(spec.string()).value_or(""));
    const std::string tokens = syntax::dump(syntax::lex(sources, 0, sink), sources);
    return tokens + diagnostics::render_text(sink.sorted(), sources, false);
  });
}

TEST_CASE("golden: syntax trees") {
  golden::run("ast", ".txt", [](const fs::path& spec) {
    diagnostics::Sink sink;
    const auto program = driver::load_file(spec.string(), {}, sink);
    REQUIRE(program.has_value());
    CHECK(!sink.has_errors());
    return ast::dump(program->files[0]);
  });
}

TEST_CASE("golden: IR") {
  golden::run("ir", ".txt", [](const fs::path& spec) {
    const Compiled compiled = compile(spec);
    std::string out;
    for (const driver::Variant& v : compiled.variants) {
      out += ir::print(v.checked.module);
      for (const analysis::LaunchCheck& c : v.launch_checks)
        out += fmt::format("launch check: {}\n", c.message);
      out += '\n';
    }
    return out + without(compiled.messages(), golden::folder("ir").string() + "/");
  });
}

TEST_CASE("golden: passes") {
  golden::run("passes", ".txt", [](const fs::path& spec) {
    std::string out, before;
    const Compiled compiled = compile(spec, [&](const passes::PassReport& report, const ir::Module& module) {
      const std::string text = ir::print(module);
      out += fmt::format("after {}:{}\n", report.name, text == before ? " the same\n" : "\n" + text);
      before = text;
    });
    std::string checked;
    for (const driver::Variant& v : compiled.variants)
      checked += "checked:\n" + ir::print(v.checked.module) + "\n";
    return checked + out;
  });
}

TEST_CASE("golden: derivatives") {
  golden::run("gradient", ".txt", [](const fs::path& spec) {
    const Compiled compiled = compile(spec);
    CHECK(!compiled.sink.has_errors());
    std::string out;
    for (const driver::Variant& v : compiled.variants) {
      const ir::Module module = driver::differentiated(v);
      out += driver::print_gradient(module);
      const emit::Specialized variant = emit::specialize(module);
      for (const emit::SpecializedKeys* keys :
           {&variant.grid, variant.context ? &*variant.context : nullptr}) {
        if (keys == nullptr) continue;
        const driver::GradientText text = driver::gradient_text(keys->module);
        for (const emit::GradientSite& site : emit::gradient_sites(*keys, keys != &variant.grid))
          out += fmt::format("{} is read {}{}: {}, {}\n", text.derivatives[site.partial].leaf,
                             analysis::name_of(site.use.pattern),
                             keys == &variant.grid ? "" : " of context keys",
                             analysis::name_of(site.adding.how), site.adding.why);
      }
    }
    return out;
  });
}

TEST_CASE("golden: CUDA of backward") {
  golden::run("backward", ".cu", [](const fs::path& spec) {
    const Compiled compiled = compile(spec);
    CHECK(!compiled.sink.has_errors());
    std::string out;
    for (const driver::Variant& v : compiled.variants)
      out +=
          emit::emit_backward(emit::specialize(driver::differentiated(v)), {}, emit::BackwardStep::captured)
              .kernel.text;
    return out;
  });
}

TEST_CASE("golden: CUDA") {
  golden::run("cuda", ".cu", [](const fs::path& spec) {
    const Compiled compiled = compile(spec);
    CHECK(!compiled.sink.has_errors());
    std::string out;
    for (const driver::Variant& v : compiled.variants) out += emit::emit_cuda(v.specialized, {}).text;
    return out;
  });
}

TEST_CASE("golden: CUDA of the kernels for tensor cores") {
  for (const emit::KernelKind kind : {emit::KernelKind::hopper, emit::KernelKind::mma})
    golden::run(std::string(emit::name_of(kind)), ".cu", [&](const fs::path& spec) {
      const Compiled compiled = compile(spec);
      CHECK(!compiled.sink.has_errors());
      std::string out;
      for (const driver::Variant& v : compiled.variants) {
        const emit::Choice choice = emit::choose(kind, v.specialized, {}, 90);
        REQUIRE_MESSAGE(!choice.candidates.empty(), choice.why);
        out += emit::emit_cuda(v.specialized, choice.candidates.front()).text;
      }
      return out;
    });
}

TEST_CASE("golden: diagnostics, as text and as JSON") {
  const std::string here = golden::folder("diagnostics").string() + "/";
  golden::run("diagnostics", ".txt", [&](const fs::path& spec) {
    const Compiled compiled = compile(spec);
    CHECK(!compiled.sink.sorted().empty());
    golden::compare(
        spec, ".json",
        without(diagnostics::render_json(compiled.sink.sorted(), compiled.program.sources), here) + "\n");
    return without(compiled.messages(), here);
  });
}

TEST_CASE("every diagnostic of the catalogue has an example") {
  std::set<std::string_view> seen;
  for (const fs::path& spec : golden::specs("diagnostics"))
    for (const diagnostics::Diagnostic& d : compile(spec).sink.sorted()) seen.insert(d.name());
  // A mebibyte is better made than kept.
  diagnostics::Sink sink;
  const std::string large = "attention a {\n}\n" + std::string(syntax::kMaxSourceBytes, '#');
  const syntax::Program program = syntax::load_program("large", "large.attn", large, nullptr, sink);
  CHECK(diagnostics::render_text(sink.sorted(), program.sources, false).find("larger than 1048576 bytes") !=
        std::string::npos);
  for (const diagnostics::Diagnostic& d : sink.sorted()) seen.insert(d.name());
  for (const diagnostics::CatalogEntry& entry : diagnostics::catalog()) {
    CAPTURE(std::string(entry.name));
    CHECK(seen.contains(entry.name));
    CHECK(!entry.explanation.empty());
  }
}

}  // namespace
}  // namespace vicinal
