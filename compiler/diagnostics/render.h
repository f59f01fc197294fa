// Diagnostics as text for a person and as JSON for a program.
#pragma once

#include <span>
#include <string>

#include "compiler/diagnostics/diagnostic.h"

namespace vicinal::diagnostics {

// Frames with carets, several places each; a blank line after every diagnostic.
std::string render_text(std::span<const Diagnostic> diagnostics, const source::SourceMap& sources,
                        bool color);

// {"schema": "vicinal.diagnostics.v1", "diagnostics": [...]}; offsets are bytes, lines and columns count
// from 1.
std::string render_json(std::span<const Diagnostic> diagnostics, const source::SourceMap& sources);

}  // namespace vicinal::diagnostics
