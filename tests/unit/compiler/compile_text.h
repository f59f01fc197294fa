// Compiles a spec that a test writes down, and keeps what was said about it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "compiler/diagnostics/render.h"
#include "compiler/driver/compile.h"

namespace vicinal::testing {

struct CompiledText {
  diagnostics::Sink sink;
  syntax::Program program;
  std::vector<driver::Variant> variants;  // of the blocks without errors

  // "unknown-name type-mismatch": what was reported, by place.
  std::string names() const {
    std::string out;
    for (const diagnostics::Diagnostic& d : sink.sorted())
      out += (out.empty() ? "" : " ") + std::string(d.name());
    return out;
  }
  std::string messages() const { return diagnostics::render_text(sink.sorted(), program.sources, false); }
  const ir::Module& module() const { return variants.at(0).checked.module; }
};

inline CompiledText compile_text(std::string text, const check::Bindings& bindings = {}) {
  CompiledText result;
  result.program = syntax::load_program("test", "test.attn", std::move(text), nullptr, result.sink);
  if (result.program.files[0].attentions.empty()) check::check_functions(result.program, result.sink);
  for (const ast::Attention& block : result.program.files[0].attentions)
    if (auto variant = driver::compile_variant(result.program, block, bindings, result.sink))
      result.variants.push_back(*std::move(variant));
  return result;
}

// One block with these statements.
inline CompiledText compile_block(const std::string& statements, const check::Bindings& bindings = {}) {
  return compile_text("attention a {\n" + statements + "\n}\n", bindings);
}

}  // namespace vicinal::testing
