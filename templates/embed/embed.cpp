// Build tool: embed OUTPUT ROOT HEADER... writes a C++ file that defines templates::bundle() of bundle.h.
#include <openssl/evp.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

namespace {

struct File {
  std::string name, text;
};

// Lengths go before the bytes, so that no two bundles run together to the same input.
std::string hash_of(const std::vector<File>& files) {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  EVP_DigestInit_ex(context, EVP_sha256(), nullptr);
  for (const File& file : files) {
    for (const std::string* part : {&file.name, &file.text}) {
      const std::uint64_t size = part->size();
      EVP_DigestUpdate(context, &size, sizeof size);
      EVP_DigestUpdate(context, part->data(), part->size());
    }
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_DigestFinal_ex(context, digest, &size);
  EVP_MD_CTX_free(context);
  std::string hex;
  for (unsigned i = 0; i < size; ++i) {
    constexpr char digits[] = "0123456789abcdef";
    hex += {digits[digest[i] >> 4], digits[digest[i] & 15]};
  }
  return hex;
}

// Raw string literals are limited to 64 KiB by some compilers; 8 KiB pieces are safe everywhere. With `sv` no
// compiler counts its characters, which takes more steps than Clang grants a constant.
void write_literal(std::ostream& out, const std::string& text) {
  constexpr std::size_t piece = 8192;
  if (text.empty()) out << "\"\"";
  for (std::size_t at = 0; at < text.size(); at += piece)
    out << (at == 0 ? "" : "\n") << "R\"~~~(" << text.substr(at, piece) << ")~~~\"";
  out << "sv";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: embed OUTPUT ROOT HEADER...\n";
    return 2;
  }
  const std::filesystem::path root = argv[2];
  std::vector<File> files;
  for (int i = 3; i < argc; ++i) {
    std::ifstream in(argv[i], std::ios::binary);
    if (!in) {
      std::cerr << "embed: cannot read " << argv[i] << '\n';
      return 2;
    }
    files.push_back({std::filesystem::relative(argv[i], root).generic_string(),
                     std::string(std::istreambuf_iterator<char>(in), {})});
  }
  std::sort(files.begin(), files.end(), [](const File& a, const File& b) { return a.name < b.name; });

  std::ofstream out(argv[1], std::ios::binary);
  out << "#include \"templates/embed/bundle.h\"\n\nnamespace vicinal::templates {\n\n"
      << "using namespace std::string_view_literals;\n\nstd::span<const Header> bundle() {\n  static "
         "constexpr Header headers[] = {\n";
  for (const File& file : files) {
    out << "{\"" << file.name << "\", ";
    write_literal(out, file.text);
    out << "},\n";
  }
  out << "  };\n  return headers;\n}\n\nstd::string_view bundle_hash() { return \"" << hash_of(files)
      << "\"; }\n\n}  // namespace vicinal::templates\n";
  return out.good() ? 0 : 2;
}
