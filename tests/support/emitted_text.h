// What emitted CUDA may be made of, token by token: no directive but our include, no asm, string or escape,
// and no identifier that is not ours.
#pragma once

#include <optional>
#include <string>

namespace vicinal::testing {

// What is wrong with the text of a kernel of that entry name, or nothing.
std::optional<std::string> forbidden_in(const std::string& text, const std::string& entry);

}  // namespace vicinal::testing
