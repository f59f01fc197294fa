// What a fuzzer and the replay of its corpus do with bytes: everything the compiler does with a spec, up to
// the emitted text. It may report what it likes; it may not crash, hang or trip an assertion.
#pragma once

#include <string>
#include <string_view>

#include "compiler/diagnostics/render.h"
#include "compiler/driver/compile.h"
#include "compiler/emit/cuda/kernel_source.h"
#include "compiler/ir/text.h"
#include "compiler/support/check.h"

namespace vicinal::fuzz {

inline void compile_bytes(std::string_view bytes) {
  diagnostics::Sink sink;
  // An import of "lib" leads to the spec itself, so that imports and cycles are walked too.
  const syntax::ImportResolver resolver = [&](const std::string&,
                                              const std::string& path) -> Result<syntax::ImportedText> {
    if (path != "lib" && path != "other") return unexpected(ErrorKind::usage, "there is no such file");
    return syntax::ImportedText{path, path,
                                path == "lib" ? std::string(bytes) : "fn imported(x: int) -> int = x"};
  };
  const syntax::Program program = syntax::load_program("top", "top", std::string(bytes), resolver, sink);
  if (program.files[0].attentions.empty()) check::check_functions(program, sink);
  for (const ast::Attention& block : program.files[0].attentions) {
    const auto variant = driver::compile_variant(program, block, {}, sink);
    if (!variant) continue;
    const std::string text = ir::print(variant->optimized);
    const Result<ir::Module> again = ir::parse(text);
    VICINAL_ASSERT(again.has_value() && ir::print(*again) == text,
                   "the IR does not survive printing:\n" + text);
    emit::emit_cuda(variant->specialized, {});
  }
  diagnostics::render_text(sink.sorted(), program.sources, true);
  diagnostics::render_json(sink.sorted(), program.sources);
}

}  // namespace vicinal::fuzz
