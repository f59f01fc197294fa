// Golden tests: a folder of specs, and beside each what one step of the compiler makes of it. To accept what
// the compiler says now, run the tests with VICINAL_UPDATE_GOLDENS=1 and read the difference.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace vicinal::golden {

std::filesystem::path folder(const std::string& name);

// The specs of a golden folder: its .attn files, and main.attn of each folder in it (whose other files are
// imports).
std::vector<std::filesystem::path> specs(const std::string& name);

// What is expected of `spec` stands in the file of the same name with `extension`; compares it, or writes it.
void compare(const std::filesystem::path& spec, const std::string& extension, const std::string& actual);

// Compares render(spec) for every spec of the folder, and finds expectations whose spec is gone.
void run(const std::string& name, const std::string& extension,
         const std::function<std::string(const std::filesystem::path&)>& render);

}  // namespace vicinal::golden
