#include "runtime/cache/maintenance.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "compiler/support/hash.h"
#include "runtime/files/atomic_file.h"

namespace vicinal::cache {
namespace fs = std::filesystem;
namespace {

using std::chrono::hours;
using std::chrono::nanoseconds;

// A writer is done within seconds. Days, because a suspended machine or a clock that jumped is no reason to
// pull a file from under one.
constexpr hours kLeftoverAge{48};

constexpr std::size_t kDigestSize = 64;

std::optional<nanoseconds> modification_time(const fs::path& path) {
  struct stat status;
  if (::lstat(path.c_str(), &status) != 0) return std::nullopt;
  return std::chrono::seconds{status.st_mtim.tv_sec} + nanoseconds{status.st_mtim.tv_nsec};
}

fs::path stamp_path(const DiskCache& cache) {
  return cache.root() / "last-prune";
}

// Ages are told by the clock that set the files' times, which on a network filesystem is not this machine's.
Result<nanoseconds> touch_stamp(const DiskCache& cache) {
  const fs::path path = stamp_path(cache);
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return files::system_error("write", path, errno);
  ::futimens(fd, nullptr);
  ::close(fd);
  const auto now = modification_time(path);
  if (!now) return files::system_error("look at", path, errno);
  return *now;
}

// Calls visit with the path of every file in a folder; a folder that is not there has none.
template <class Visit>
void for_each_file(const fs::path& folder, Visit visit) {
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    visit(it->path());
}

template <class Visit>
void for_each_file_of_kernels(const DiskCache& cache, Visit visit) {
  for_each_file(cache.kernels(), [&](const fs::path& fan_out) { for_each_file(fan_out, visit); });
}

bool is_entry(const fs::path& path) {
  const std::string name = path.filename().native();
  return name.size() == kDigestSize + kEntrySuffix.size() && name.ends_with(kEntrySuffix) &&
         name.find_first_not_of("0123456789abcdef") == kDigestSize;
}

bool is_temporary(const fs::path& path) {
  return path.native().ends_with(files::kTemporarySuffix);
}

std::optional<EntryInfo> entry_info(const fs::path& path) {
  struct stat status;
  if (!is_entry(path) || ::lstat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  return EntryInfo{path.stem().native(), path, static_cast<std::uint64_t>(status.st_size),
                   std::chrono::seconds{status.st_mtim.tv_sec} + nanoseconds{status.st_mtim.tv_nsec}};
}

// Absent, when the entry has vanished meanwhile.
std::variant<Entry, Defect> read_entry(const EntryInfo& info) {
  const auto file = files::read_whole_file(info.path, kMaxEntryBytes);
  if (!file) return Defect{Miss::damaged, file.error().message};
  if (!file->has_value()) return Defect{Miss::absent, "it is not there any more"};
  auto decoded = decode_entry(**file);
  if (const auto* entry = std::get_if<Entry>(&decoded);
      entry != nullptr && support::sha256_hex(entry->record) != info.digest) {
    return Defect{Miss::damaged, "it holds another key than its name says"};
  }
  return decoded;
}

bool remove_file(const fs::path& path) {
  return ::unlink(path.c_str()) == 0;
}

// A lock file may go only while we hold its lock; who waited for it then notices that it is gone.
bool remove_idle_lock(const fs::path& path) {
  const auto lock = FileLock::acquire(path, 0600, {});
  return lock && lock->has_value() && remove_file(path);
}

std::size_t remove_leftovers(const DiskCache& cache, nanoseconds now) {
  std::size_t removed = 0;
  const auto is_old = [&](const fs::path& path) {
    const auto time = modification_time(path);
    return time && now - *time > kLeftoverAge;
  };
  for_each_file_of_kernels(cache, [&](const fs::path& path) {
    if (is_temporary(path) && is_old(path)) removed += remove_file(path);
  });
  for_each_file(cache.locks(), [&](const fs::path& path) {
    if (is_old(path)) removed += remove_idle_lock(path);
  });
  return removed;
}

}  // namespace

std::vector<EntryInfo> list(const DiskCache& cache) {
  std::vector<EntryInfo> entries;
  for_each_file_of_kernels(cache, [&](const fs::path& path) {
    if (auto info = entry_info(path)) entries.push_back(std::move(*info));
  });
  std::sort(entries.begin(), entries.end(), [](const EntryInfo& a, const EntryInfo& b) {
    return std::tie(b.last_use, a.digest) < std::tie(a.last_use, b.digest);
  });
  return entries;
}

Result<EntryDetails> inspect(const DiskCache& cache, std::string_view digest_prefix) {
  std::vector<EntryInfo> matches = list(cache);
  std::erase_if(matches, [&](const EntryInfo& info) { return !info.digest.starts_with(digest_prefix); });
  if (matches.size() != 1) {
    return unexpected(ErrorKind::usage,
                      fmt::format("{} entries of `{}` begin with `{}`", matches.empty() ? "no" : "several",
                                  cache.root().native(), digest_prefix),
                      matches.empty() ? "list them to see what is there" : "give more digits");
  }
  auto read = read_entry(matches[0]);
  if (const auto* defect = std::get_if<Defect>(&read)) {
    return unexpected(ErrorKind::mismatch,
                      fmt::format("`{}` is no usable entry: {}", matches[0].path.native(), defect->detail));
  }
  Entry& entry = std::get<Entry>(read);
  auto key = parse_record(entry.record);
  if (!key) {
    return unexpected(ErrorKind::mismatch,
                      fmt::format("`{}` holds a malformed key", matches[0].path.native()));
  }
  return EntryDetails{std::move(matches[0]), std::move(*key), std::move(entry.payload)};
}

VerifyReport verify(const DiskCache& cache, bool remove_damaged) {
  VerifyReport report;
  for (const EntryInfo& info : list(cache)) {
    const auto read = read_entry(info);
    const auto* defect = std::get_if<Defect>(&read);
    if (defect == nullptr) {
      ++report.intact;
    } else if (defect->reason == Miss::other_format) {
      ++report.other_format;
    } else if (defect->reason == Miss::damaged) {
      report.damaged.push_back({info.digest, defect->detail, remove_damaged && remove_file(info.path)});
    }
  }
  return report;
}

Result<PruneReport> prune(const DiskCache& cache, const Limits& limits) {
  VICINAL_TRY(const nanoseconds now, touch_stamp(cache));
  PruneReport report;
  report.leftovers = remove_leftovers(cache, now);
  std::vector<EntryInfo> entries = list(cache);
  for (const EntryInfo& info : entries) report.bytes_before += info.bytes;
  report.bytes_after = report.bytes_before;
  for (auto oldest = entries.rbegin(); oldest != entries.rend(); ++oldest) {
    const bool too_old = limits.max_age.count() != 0 && now - oldest->last_use > limits.max_age;
    const bool too_much = limits.max_bytes != 0 && report.bytes_after > limits.max_bytes;
    if (!too_old && !too_much) break;
    // Gone either way: if not by us, then by somebody who pruned at the same time.
    report.evicted += remove_file(oldest->path);
    report.bytes_after -= oldest->bytes;
  }
  return report;
}

bool is_prune_due(const DiskCache& cache) {
  const auto last = modification_time(stamp_path(cache));
  if (!last) return true;
  const nanoseconds now = std::chrono::system_clock::now().time_since_epoch();
  return now - *last > hours{1};
}

std::size_t clear(const DiskCache& cache) {
  std::size_t removed = 0;
  for (const EntryInfo& info : list(cache)) removed += remove_file(info.path);
  return removed;
}

}  // namespace vicinal::cache
