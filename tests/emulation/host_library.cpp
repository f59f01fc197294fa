#include "tests/emulation/host_library.h"

#include <dlfcn.h>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <vector>

namespace vicinal::testing {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> matches(const std::string& text, const std::regex& what) {
  std::vector<std::string> all;
  for (std::sregex_iterator at(text.begin(), text.end(), what), end; at != end; ++at) all.push_back((*at)[1]);
  return all;
}

// One statement: its instructions, and what its operands are by number, as the sums come first.
std::string calls_of(const std::string& statement) {
  static const std::regex instruction("\"(wgmma\\.mma_async[^\"]*);"), number("%([0-9]+)"),
      tail("\\}, (%.*)$"), registers("\\{%([0-9]+), %([0-9]+), %([0-9]+), %([0-9]+)\\}, (%.*)$"),
      kind("m64n([0-9]+)k16\\.f32\\.(b?f16)"), input("\"[lr]\"\\(([^()]*)\\)"),
      array("\"\\+f\"\\((\\w+)\\[0\\]\\)");
  const std::vector<std::string> inputs = matches(statement, input);
  std::smatch found;
  if (!std::regex_search(statement, found, array)) return "#error no accumulator\n";
  const std::string sums = found[1];
  std::string text;
  for (const std::string& line : matches(statement, instruction)) {
    std::regex_search(line, found, kind);
    const int columns = std::stoi(found[1]);
    const std::string call =
        fmt::format("    cuda_on_host::multiply<{}, {}>({}", found[2] == "f16", columns, sums);
    // What follows the accumulator's list.
    const std::string rest = line.substr(line.find('}') + 3);
    std::vector<std::string> operands;
    for (const std::string& n : matches(rest, number))
      operands.push_back(inputs.at(static_cast<std::size_t>(std::stoi(n) - columns / 2)));
    // adds, sign of a, sign of b, and how the operands in shared memory lie.
    std::vector<std::string> flags;
    for (std::size_t at = rest.find_last_of('%'); (at = rest.find(", ", at)) != std::string::npos; at += 2)
      flags.push_back(rest.substr(at + 2, rest.find(',', at + 2) - at - 2));
    flags.erase(flags.begin() + 1, flags.begin() + 3);
    text += fmt::format("{}, {}, {});\n", call, fmt::join(operands, ", "), fmt::join(flags, ", "));
  }
  return text;
}

// The asm statements of wgmma in emitted text, as calls of hopper_on_host.h.
std::string products_on_host(const std::string& text) {
  std::string out;
  std::size_t at = 0;
  for (std::size_t begin; (begin = text.find("asm volatile(", at)) != std::string::npos;) {
    const std::size_t end = text.find(");\n", begin) + 3;
    const std::string statement = text.substr(begin, end - begin);
    out += text.substr(at, begin - at);
    if (statement.find("wgmma.mma_async") != std::string::npos) {
      out += "\n" + calls_of(statement);
    } else if (statement.find("wgmma.commit_group") != std::string::npos) {
      out += "cuda_on_host::commit_products();\n";
    } else {
      out += "\n";
    }
    at = end;
  }
  return out + text.substr(at);
}

}  // namespace

std::optional<HostLibrary> build_on_host(const emit::KernelSource& source, std::string_view arguments) {
  return HostLibrary::build(
      products_on_host(source.text) +
      fmt::format("extern \"C\" void emulate(const void* a, unsigned grid, unsigned threads) {{\n"
                  "  cuda_on_host::block.begin = cuda_on_host::begin_hopper_block;\n"
                  "  cuda_on_host::run(grid, threads, [&] {{ {}(*static_cast<const {}*>(a)); }});\n}}\n",
                  source.entry, arguments));
}

std::optional<HostLibrary> HostLibrary::build(const std::string& text) {
  std::string folder_name = (fs::temp_directory_path() / "vicinal-emulation-XXXXXX").string();
  REQUIRE(mkdtemp(folder_name.data()) != nullptr);
  const fs::path folder = folder_name, root(VICINAL_SOURCE_DIR);
  std::ofstream(folder / "kernel.cpp") << text;
  const std::string command = fmt::format(
      "{} -std=c++20 -O1 -w -shared -fPIC -fno-gnu-unique -ffp-contract=off -include {} -I{} -I{} {} -o {} "
      "2> {}",
      VICINAL_CXX_COMPILER, (root / "tests/emulation/hopper_on_host.h").string(),
      (root / "tests/emulation/overlay").string(), (root / "templates").string(),
      (folder / "kernel.cpp").string(), (folder / "kernel.so").string(), (folder / "log").string());
  const bool compiled = std::system(command.c_str()) == 0;
  void* const handle = compiled ? dlopen((folder / "kernel.so").c_str(), RTLD_NOW | RTLD_LOCAL) : nullptr;
  std::optional<HostLibrary> library;
  if (handle == nullptr) {
    std::ifstream log(folder / "log");
    MESSAGE(std::string(std::istreambuf_iterator<char>(log), {}).substr(0, 4000));
  } else {
    library.emplace();
    library->library_.reset(handle, [](void* opened) { dlclose(opened); });
  }
  if (std::getenv("VICINAL_EMULATION_KEEP") == nullptr) fs::remove_all(folder);
  return library;
}

void* HostLibrary::address(const std::string& name) const {
  return dlsym(library_.get(), name.c_str());
}

}  // namespace vicinal::testing
