// What a compiled kernel depends on, and nothing else: no paths, times, process ids, locale. The same key on
// two machines means the same machine code.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace vicinal::cache {

// Of the key record and of the entry file. It is part of the key, so versions share a folder and never a
// file.
inline constexpr std::uint32_t kFormatVersion = 1;

struct KernelKey {
  std::string source;                        // the whole emitted text
  std::string entry;                         // the kernel's symbol
  std::string arch;                          // with its suffix: `sm_90a`
  std::vector<std::string> options;          // of the compiler, in order
  std::string compiler;                      // its version and the digest of its library
  std::string emitter;                       // the version of our emitter and of the headers it includes
  std::map<std::string, std::string> extra;  // whatever else a backend depends on

  bool operator==(const KernelKey&) const = default;
};

// The key as named values in a fixed order, for the record and for display.
std::vector<std::pair<std::string, std::string>> fields(const KernelKey& key);

// The fields, each name and value with its length in front: two keys that differ have different records.
std::string record(const KernelKey& key);
std::optional<KernelKey> parse_record(std::string_view record);

// SHA-256 of the record, in hexadecimal; names the entry.
std::string digest(const KernelKey& key);

}  // namespace vicinal::cache
