// Text to tokens. Always ends with end_of_file; bytes that are no token are reported and passed over.
#pragma once

#include "compiler/diagnostics/sink.h"
#include "compiler/syntax/token.h"

namespace vicinal::syntax {

std::vector<Token> lex(const source::SourceMap& sources, std::uint32_t file, diagnostics::Sink& sink);

}  // namespace vicinal::syntax
