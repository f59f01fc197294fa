// Entries in one file, to carry them to another machine: the same key means the same machine code there.
#pragma once

#include <vicinal/result.h>
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "runtime/cache/disk_cache.h"

namespace vicinal::cache {

struct ArchiveReport {
  std::size_t entries = 0;
  std::size_t skipped = 0;  // damaged at export, of another format version at import
};

// All intact entries, or those whose digests are given.
Result<ArchiveReport> export_archive(const DiskCache& cache, const std::filesystem::path& archive,
                                     const std::vector<std::string>& digests = {});

// Checks every byte of the archive before the first entry is taken. The checks find damage, not malice, and
// what is taken will be run: without `trust` nothing is taken, and the error says so.
Result<ArchiveReport> import_archive(const DiskCache& cache, const std::filesystem::path& archive,
                                     bool trust);

}  // namespace vicinal::cache
