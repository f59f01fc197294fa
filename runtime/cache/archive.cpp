#include "runtime/cache/archive.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <optional>

#include "compiler/support/hash.h"
#include "runtime/cache/byte_stream.h"
#include "runtime/cache/kernel_key.h"
#include "runtime/cache/maintenance.h"
#include "runtime/files/atomic_file.h"

namespace vicinal::cache {
namespace fs = std::filesystem;
namespace {

// magic, version u32, then each entry's file as a string, then a length of zero: without it the file is cut.
constexpr std::string_view kMagic("\x89VICARC\n", 8);
constexpr std::uint32_t kVersion = 1;

class ArchiveReader {
 public:
  explicit ArchiveReader(const fs::path& path) : path_(path) {}

  Result<void> open() {
    errno = 0;
    stream_.open(path_, std::ios::binary);
    if (!stream_) return files::system_error("read", path_, errno);
    const auto head = read(kMagic.size() + sizeof(kVersion));
    if (!head || !head->starts_with(kMagic)) {
      return unexpected(ErrorKind::usage, fmt::format("`{}` is not an archive of kernels", path_.native()));
    }
    const auto version = *ByteReader(std::string_view(*head).substr(kMagic.size())).take<std::uint32_t>();
    if (version == kVersion) return {};
    return unexpected(ErrorKind::usage, fmt::format("`{}` has the archive version {}; {} is known",
                                                    path_.native(), version, kVersion));
  }

  // The next entry's file; nullopt at the end.
  Result<std::optional<std::string>> next() {
    const auto prefix = read(sizeof(std::uint64_t));
    if (!prefix) return damaged("it is truncated");
    const auto size = *ByteReader(*prefix).take<std::uint64_t>();
    if (size == 0) {
      if (stream_.peek() != std::ifstream::traits_type::eof()) return damaged("something follows its end");
      return std::optional<std::string>();
    }
    if (size > kMaxEntryBytes) return damaged("an entry is impossibly large");
    auto entry = read(size);
    if (!entry) return damaged("it is truncated");
    return entry;
  }

  Unexpected damaged(std::string_view detail) const {
    return unexpected(ErrorKind::mismatch, fmt::format("`{}` is damaged: {}", path_.native(), detail),
                      "export or copy it again");
  }

 private:
  std::optional<std::string> read(std::size_t size) {
    std::string bytes(size, '\0');
    if (!stream_.read(bytes.data(), static_cast<std::streamsize>(size))) return std::nullopt;
    return bytes;
  }

  const fs::path& path_;
  std::ifstream stream_;
};

// Calls take(digest, file) for every entry of our format, each checked in full.
template <class Take>
Result<ArchiveReport> for_each_entry(const fs::path& archive, Take take) {
  ArchiveReport report;
  ArchiveReader reader(archive);
  VICINAL_TRY_VOID(reader.open());
  for (;;) {
    VICINAL_TRY(const std::optional<std::string> file, reader.next());
    if (!file) return report;
    const auto decoded = decode_entry(*file);
    if (const auto* defect = std::get_if<Defect>(&decoded)) {
      if (defect->reason != Miss::other_format)
        return reader.damaged(fmt::format("an entry: {}", defect->detail));
      ++report.skipped;
      continue;
    }
    const std::string& record = std::get<Entry>(decoded).record;
    if (!parse_record(record)) return reader.damaged("an entry holds a malformed key");
    VICINAL_TRY_VOID(take(support::sha256_hex(record), *file));
    ++report.entries;
  }
}

}  // namespace

Result<ArchiveReport> export_archive(const DiskCache& cache, const fs::path& archive,
                                     const std::vector<std::string>& digests) {
  VICINAL_TRY(files::AtomicFile out, files::AtomicFile::create(archive));
  std::string head(kMagic);
  put(head, kVersion);
  VICINAL_TRY_VOID(out.append(head));
  ArchiveReport report;
  std::vector<EntryInfo> entries = list(cache);
  // By digest: the same entries make the same archive.
  std::sort(entries.begin(), entries.end(),
            [](const EntryInfo& a, const EntryInfo& b) { return a.digest < b.digest; });
  for (const EntryInfo& info : entries) {
    if (!digests.empty() && std::find(digests.begin(), digests.end(), info.digest) == digests.end()) continue;
    const auto file = files::read_whole_file(info.path, kMaxEntryBytes);
    const auto decoded = file && file->has_value() ? decode_entry(**file) : Defect{Miss::absent, {}};
    const auto* entry = std::get_if<Entry>(&decoded);
    if (entry == nullptr || support::sha256_hex(entry->record) != info.digest) {
      ++report.skipped;
      continue;
    }
    std::string prefix;
    put<std::uint64_t>(prefix, (*file)->size());
    VICINAL_TRY_VOID(out.append(prefix));
    VICINAL_TRY_VOID(out.append(**file));
    ++report.entries;
  }
  VICINAL_TRY_VOID(out.append(std::string(sizeof(std::uint64_t), '\0')));
  VICINAL_TRY_VOID(out.commit(/*durable=*/true));
  return report;
}

Result<ArchiveReport> import_archive(const DiskCache& cache, const fs::path& archive, bool trust) {
  const auto leave = [](const std::string&, const std::string&) -> Result<void> { return {}; };
  VICINAL_TRY(const ArchiveReport checked, for_each_entry(archive, leave));
  if (!trust) {
    return unexpected(
        ErrorKind::usage,
        fmt::format("`{}` is whole ({} entries), but holds machine code that would run as yours",
                    archive.native(), checked.entries),
        "import it with --trust if you know where it comes from");
  }
  return for_each_entry(archive, [&](const std::string& digest, const std::string& file) {
    return cache.publish(digest, file);
  });
}

}  // namespace vicinal::cache
