// An entry: one compiled kernel with all that is known of it, as one file.
//
//   magic        8 bytes
//   version      u32
//   count        u32                 of the sections that follow
//   lengths      u64 for each
//   sections     the key's record (the source is in it), binary, log, notes
//   checksum     SHA-256 of everything before it, as 64 hexadecimal digits
//
// Every version keeps the first two lines and the last. The checksum tells damage, not malice: the folder is
// trusted like the program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

namespace vicinal::cache {

struct Payload {
  std::string binary;  // a cubin, or another backend's object code
  std::string log;     // what the compiler said
  std::string notes;   // resources: registers, shared memory, spills

  bool operator==(const Payload&) const = default;
};

// Why a kernel did not come from the cache.
enum class Miss : std::uint8_t {
  none,               // it did
  absent,             // there is no entry
  damaged,            // an entry failed its checks or could not be read
  other_format,       // an entry of another version of the program
  refresh,            // the mode asks for a new compilation
  off,                // the mode switches the cache off
  memory_only,        // there is no folder on disk, by the mode or because no home is known
  directory_refused,  // the folder is not safe or not usable
};
inline constexpr std::size_t kMissCount = 8;
std::string_view name_of(Miss miss);

struct Defect {
  Miss reason;  // damaged or other_format
  std::string detail;
};

struct Entry {
  std::string record;
  Payload payload;
};

// More than any kernel; a file beyond it is damage, not an entry.
inline constexpr std::size_t kMaxEntryBytes = std::size_t{1} << 28;

std::string encode_entry(std::string_view record, const Payload& payload);
std::variant<Entry, Defect> decode_entry(std::string_view file);

}  // namespace vicinal::cache
