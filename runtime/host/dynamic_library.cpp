#include "runtime/host/dynamic_library.h"

#include <dlfcn.h>
#include <elf.h>
#include <fmt/format.h>
#include <link.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string_view>

#include "compiler/support/hash.h"

namespace vicinal::host {
namespace {

std::filesystem::path path_of(void* handle, const std::string& name) {
  link_map* map = nullptr;
  if (dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 && map != nullptr && map->l_name[0] != '\0')
    return map->l_name;
  return name;
}

template <class T>
bool read_at(std::istream& in, std::uint64_t offset, T& into) {
  in.seekg(static_cast<std::streamoff>(offset));
  return static_cast<bool>(in.read(reinterpret_cast<char*>(&into), sizeof into));
}

// The descriptor of NT_GNU_BUILD_ID, or nothing.
std::string build_id(std::istream& in) {
  ElfW(Ehdr) header;
  if (!read_at(in, 0, header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_ident[EI_CLASS] != (sizeof(void*) == 8 ? ELFCLASS64 : ELFCLASS32)) {
    return {};
  }
  const auto padded = [](std::uint64_t n) { return (n + 3) / 4 * 4; };
  for (int i = 0; i < header.e_phnum; ++i) {
    ElfW(Phdr) segment;
    if (!read_at(in, header.e_phoff + static_cast<std::uint64_t>(i) * header.e_phentsize, segment)) return {};
    if (segment.p_type != PT_NOTE) continue;
    std::uint64_t at = segment.p_offset;
    const std::uint64_t end = at + segment.p_filesz;
    ElfW(Nhdr) note;
    while (at + sizeof note <= end && read_at(in, at, note)) {
      const std::uint64_t name = at + sizeof note, descriptor = name + padded(note.n_namesz);
      char owner[4];
      if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == sizeof owner && read_at(in, name, owner) &&
          std::memcmp(owner, "GNU", 4) == 0 && note.n_descsz > 0 && note.n_descsz <= 64) {
        std::string id(note.n_descsz, '\0');
        in.seekg(static_cast<std::streamoff>(descriptor));
        if (in.read(id.data(), static_cast<std::streamsize>(id.size()))) return id;
        return {};
      }
      at = descriptor + padded(note.n_descsz);
    }
  }
  return {};
}

}  // namespace

Result<DynamicLibrary> open_library(const LibrarySearch& search) {
  std::string reasons;
  for (const std::string& candidate : search.candidates) {
    if (void* handle = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL)) {
      return DynamicLibrary{handle, path_of(handle, candidate)};
    }
    // The loader's message starts with the name of the file, which stands there already.
    std::string_view reason = dlerror();
    if (reason.substr(0, candidate.size()) == candidate) reason.remove_prefix(candidate.size());
    reasons += fmt::format("\n  {}{}{}", candidate, reason.substr(0, 1) == ":" ? "" : ": ", reason);
  }
  return unexpected(ErrorKind::environment, fmt::format("cannot open {}; searched:{}", search.what, reasons),
                    search.help);
}

void* find_symbol(void* library, const char* symbol) {
  return dlsym(library, symbol);
}

Result<std::string> library_identity(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return unexpected(ErrorKind::environment, fmt::format("cannot read {}", path.string()));
  if (const std::string id = build_id(in); !id.empty()) return support::sha256_hex("build id:" + id);
  in.clear();
  in.seekg(0);
  const std::string bytes(std::istreambuf_iterator<char>(in), {});
  return support::sha256_hex("file:" + bytes);
}

}  // namespace vicinal::host
