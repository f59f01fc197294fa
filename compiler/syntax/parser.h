// Tokens to a syntax tree. Recovers at statements, so that one run reports many mistakes.
#pragma once

#include "compiler/diagnostics/sink.h"
#include "compiler/syntax/ast.h"

namespace vicinal::syntax {

inline constexpr int kMaxNesting = 256;

ast::File parse(const source::SourceMap& sources, std::uint32_t file, diagnostics::Sink& sink);

}  // namespace vicinal::syntax
