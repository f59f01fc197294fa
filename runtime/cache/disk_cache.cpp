#include "runtime/cache/disk_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include "runtime/files/atomic_file.h"

namespace vicinal::cache {
namespace fs = std::filesystem;
namespace {

// Tells backup programs that nothing here is worth keeping (bford.info/cachedir).
void write_cachedir_tag(const fs::path& root, mode_t mode) {
  const fs::path path = root / "CACHEDIR.TAG";
  std::error_code error;
  if (fs::exists(path, error) || error) return;
  auto file = files::AtomicFile::create(path, mode);
  if (!file) return;
  if (file->append("Signature: 8a477f597d28d172789f06886806bc55\n# A cache of compiled kernels.\n")) {
    (void)file->commit(/*durable=*/false).has_value();
  }
}

mode_t file_mode(Trust trust) {
  return trust == Trust::group ? 0660 : 0600;
}

}  // namespace

Result<DiskCache> DiskCache::open(fs::path root, Trust trust) {
  if (trust == Trust::packaged) {
    VICINAL_TRY_VOID(check_directory(root, trust));
  } else {
    VICINAL_TRY_VOID(prepare_directory(root, trust));
    write_cachedir_tag(root, file_mode(trust));
  }
  return DiskCache(std::move(root), trust);
}

fs::path DiskCache::entry_path(std::string_view digest) const {
  return root_ / "kernels" / digest.substr(0, 2) / fmt::format("{}{}", digest, kEntrySuffix);
}

Lookup DiskCache::find(std::string_view digest, std::string_view record) const {
  const fs::path path = entry_path(digest);
  const auto damaged = [&](std::string_view why) {
    return Lookup{nullptr, Miss::damaged, fmt::format("`{}`: {}", path.native(), why)};
  };
  const auto file = files::read_whole_file(path, kMaxEntryBytes);
  if (!file) return damaged(file.error().message);
  if (!file->has_value()) return {nullptr, Miss::absent, {}};
  auto decoded = decode_entry(**file);
  if (const auto* defect = std::get_if<Defect>(&decoded)) {
    return {nullptr, defect->reason, fmt::format("`{}`: {}", path.native(), defect->detail)};
  }
  Entry& entry = std::get<Entry>(decoded);
  if (entry.record != record) return damaged("it holds another key");
  if (trust_ != Trust::packaged) ::utimensat(AT_FDCWD, path.c_str(), nullptr, AT_SYMLINK_NOFOLLOW);
  return {std::make_shared<const Payload>(std::move(entry.payload)), Miss::none, {}};
}

Result<void> DiskCache::publish(std::string_view digest, std::string_view encoded) const {
  const fs::path path = entry_path(digest);
  // From the root on, since the user may have removed it, and each with the mode that the cache's folders
  // have.
  for (const fs::path& folder : {root_, kernels(), path.parent_path()}) {
    VICINAL_TRY_VOID(prepare_directory(folder, trust_));
  }
  VICINAL_TRY(files::AtomicFile file, files::AtomicFile::create(path, file_mode(trust_)));
  VICINAL_TRY_VOID(file.append(encoded));
  return file.commit(/*durable=*/true);
}

Result<std::optional<FileLock>> DiskCache::lock(std::string_view digest,
                                                std::chrono::milliseconds patience) const {
  VICINAL_TRY_VOID(prepare_directory(locks(), trust_));
  return FileLock::acquire(locks() / digest, file_mode(trust_), patience);
}

}  // namespace vicinal::cache
