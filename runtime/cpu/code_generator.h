// Opens the library that generates code for the CPU.
#pragma once

#include <vicinal/result.h>

#include <filesystem>

#include "runtime/cpu/generated_code.h"

namespace vicinal::cpu {

// Opened once and kept. `path`: a library or the folder it is in; empty: beside this program or library, and
// where the loader looks. Errors (environment): not there, built from other sources, or of no use on this
// machine.
Result<const CodeGeneratorApi*> code_generator(const std::filesystem::path& path);

}  // namespace vicinal::cpu
