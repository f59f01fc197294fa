// The cache on disk: one file per entry, whole or not there.
//
//   ROOT/kernels/ab/<digest>.entry   the entries, in 256 folders by the first two digits of the digest
//   ROOT/locks/<digest>              empty; held while a key is being compiled
//   ROOT/last-prune                  empty; its time is the filesystem's clock
//
// An entry is never changed, so its modification time is free to mean its last use. Readers need no lock.
#pragma once

#include <vicinal/result.h>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/cache/directory.h"
#include "runtime/cache/entry.h"
#include "runtime/cache/file_lock.h"

namespace vicinal::cache {

struct Lookup {
  std::shared_ptr<const Payload> payload;  // null on a miss
  Miss miss = Miss::none;
  std::string detail;
};

class DiskCache {
 public:
  // Makes the folder if it is not there; an error says why it is refused.
  static Result<DiskCache> open(std::filesystem::path root, Trust trust = Trust::own);

  // An entry is handed out only if every check holds: magic, version, lengths, checksum, and the key itself.
  Lookup find(std::string_view digest, std::string_view record) const;

  // Puts an encoded entry in place. Whoever made the bytes goes on with them and does not read them back: on
  // a network filesystem the file may not be visible at once.
  Result<void> publish(std::string_view digest, std::string_view encoded) const;

  // nullopt when another process still holds the key's lock after `patience`.
  Result<std::optional<FileLock>> lock(std::string_view digest, std::chrono::milliseconds patience) const;

  const std::filesystem::path& root() const { return root_; }
  std::filesystem::path kernels() const { return root_ / "kernels"; }
  std::filesystem::path locks() const { return root_ / "locks"; }
  std::filesystem::path entry_path(std::string_view digest) const;

 private:
  DiskCache(std::filesystem::path root, Trust trust) : root_(std::move(root)), trust_(trust) {}
  std::filesystem::path root_;
  Trust trust_;
};

inline constexpr std::string_view kEntrySuffix = ".entry";

}  // namespace vicinal::cache
