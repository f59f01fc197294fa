#include "runtime/cache/entry.h"

#include <fmt/format.h>

#include <array>

#include "compiler/support/hash.h"
#include "runtime/cache/byte_stream.h"
#include "runtime/cache/kernel_key.h"

namespace vicinal::cache {
namespace {

constexpr std::string_view kMagic("\x89VICINL\n", 8);  // not text, and cut by a text-mode copy
constexpr std::uint32_t kSectionCount = 4;
constexpr std::size_t kHeaderSize = 16 + 8 * kSectionCount;
constexpr std::size_t kChecksumSize = 64;

Defect damaged(std::string detail) {
  return {Miss::damaged, std::move(detail)};
}

}  // namespace

std::string_view name_of(Miss miss) {
  constexpr std::array<std::string_view, kMissCount> kNames = {
      "none", "absent", "damaged", "other-format", "refresh", "off", "memory-only", "directory-refused"};
  return kNames[static_cast<std::size_t>(miss)];
}

std::string encode_entry(std::string_view record, const Payload& payload) {
  const std::string_view sections[kSectionCount] = {record, payload.binary, payload.log, payload.notes};
  std::size_t size = kHeaderSize + kChecksumSize;
  for (const auto section : sections) size += section.size();
  std::string file;
  file.reserve(size);
  file += kMagic;
  put(file, kFormatVersion);
  put(file, kSectionCount);
  for (const auto section : sections) put<std::uint64_t>(file, section.size());
  for (const auto section : sections) file += section;
  return file += support::sha256_hex(file);
}

std::variant<Entry, Defect> decode_entry(std::string_view file) {
  if (!file.starts_with(kMagic)) return damaged("it does not begin like an entry");
  if (file.size() < kHeaderSize + kChecksumSize) return damaged("it is truncated");
  const std::string_view checked = file.substr(0, file.size() - kChecksumSize);
  if (support::sha256_hex(checked) != file.substr(checked.size())) {
    return damaged("its SHA-256 does not match its content");
  }
  ByteReader reader(checked.substr(kMagic.size()));
  if (const auto version = *reader.take<std::uint32_t>(); version != kFormatVersion) {
    return Defect{Miss::other_format, fmt::format("format version {}, not {}", version, kFormatVersion)};
  }
  if (*reader.take<std::uint32_t>() != kSectionCount) return damaged("it has an unknown number of sections");
  std::array<std::uint64_t, kSectionCount> lengths;
  for (auto& length : lengths) length = *reader.take<std::uint64_t>();
  Entry entry;
  std::string* const sections[kSectionCount] = {&entry.record, &entry.payload.binary, &entry.payload.log,
                                                &entry.payload.notes};
  for (std::size_t i = 0; i < kSectionCount; ++i) {
    const auto section = reader.take_bytes(lengths[i]);
    if (!section) return damaged("a section is longer than the file");
    *sections[i] = *section;
  }
  if (!reader.empty()) return damaged("it is longer than its sections");
  return entry;
}

}  // namespace vicinal::cache
