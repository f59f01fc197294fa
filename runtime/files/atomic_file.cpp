#include "runtime/files/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

namespace vicinal::files {
namespace fs = std::filesystem;
namespace {

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

void sync_folder(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);  // best effort: not every filesystem can
  ::close(fd);
}

// Temporaries by name. Never freed: threads may still write while the process ends.
struct Remembered {
  std::mutex mutex;
  std::set<fs::path> paths;
};
std::atomic<Remembered*> remembered = nullptr;  // none: nobody asked for it

// A temporary comes or goes only in its thread's turn, so that what is remembered is what there is.
class Turn {
 public:
  Turn() : list_(remembered.load()) {
    if (list_ != nullptr) list_->mutex.lock();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  ~Turn() {
    if (list_ != nullptr) list_->mutex.unlock();
  }
  void add(const fs::path& path) {
    if (list_ != nullptr) list_->paths.insert(path);
  }
  void remove(const fs::path& path) {
    if (list_ != nullptr) list_->paths.erase(path);
  }

 private:
  Remembered* const list_;
};

// A descriptor, or -1 with errno.
int create_temporary(const fs::path& path, mode_t mode) {
  Turn turn;
  turn.add(path);  // may throw: before there is anything to lose
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
  if (fd < 0) turn.remove(path);
  return fd;
}

// Closes on every way out.
struct Descriptor {
  int fd;
  ~Descriptor() { ::close(fd); }
};

}  // namespace

Unexpected system_error(std::string_view what, const fs::path& path, int error_number) {
  return unexpected(ErrorKind::usage, fmt::format("cannot {} `{}`: {}", what, path.native(),
                                                  std::generic_category().message(error_number)));
}

std::string random_name() {
  std::array<unsigned char, 16> bytes;
  if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    std::random_device device;
    for (auto& byte : bytes) byte = static_cast<unsigned char>(device());
  }
  std::string name;
  for (const auto byte : bytes) fmt::format_to(std::back_inserter(name), "{:02x}", byte);
  return name;
}

AtomicFile::AtomicFile(fs::path target, fs::path temporary, int fd)
    : target_(std::move(target)), temporary_(std::move(temporary)), fd_(fd) {}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : target_(std::move(other.target_)), temporary_(std::move(other.temporary_)), fd_(other.fd_) {
  other.fd_ = -1;
  other.temporary_.clear();
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (temporary_.empty()) return;
  Turn turn;
  ::unlink(temporary_.c_str());
  turn.remove(temporary_);
}

Result<AtomicFile> AtomicFile::create(const fs::path& target, std::optional<mode_t> mode) {
  const fs::path temporary = folder_of(target) / fmt::format(".{}{}", random_name(), kTemporarySuffix);
  const int fd = create_temporary(temporary, mode.value_or(0666));
  if (fd < 0) return system_error("create a file beside", target, errno);
  AtomicFile file(target, temporary, fd);
  if (mode && ::fchmod(fd, *mode) != 0) return system_error("set the mode of", temporary, errno);
  return file;
}

Result<void> AtomicFile::append(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return system_error("write", target_, errno);
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

// 0, or errno.
int AtomicFile::rename_to_target() {
  Turn turn;
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) return errno;
  turn.remove(temporary_);
  temporary_.clear();
  return 0;
}

Result<void> AtomicFile::commit(bool durable) {
  if (durable && ::fsync(fd_) != 0) return system_error("write", target_, errno);
  // A network filesystem may report a full quota only here.
  if (::close(std::exchange(fd_, -1)) != 0) return system_error("write", target_, errno);
  if (const int error = rename_to_target(); error != 0) return system_error("write", target_, error);
  if (durable) sync_folder(folder_of(target_));
  return {};
}

void remember_temporaries() {
  Remembered* none = nullptr;
  auto list = std::make_unique<Remembered>();
  if (remembered.compare_exchange_strong(none, list.get())) list.release();
}

void abandon_temporaries() {
  Remembered* const list = remembered.load();
  if (list == nullptr) return;
  // A filesystem that hangs may keep a turn from ending; that must not keep the process from it.
  int patience = 2000;
  while (!list->mutex.try_lock()) {
    if (--patience == 0) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (const fs::path& path : list->paths) ::unlink(path.c_str());
}

Result<std::optional<std::string>> read_whole_file(const fs::path& path, std::size_t max_bytes) {
  // Non-blocking, so that a pipe in a file's place cannot hold us up.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) return std::optional<std::string>();
  if (fd < 0) return system_error("open", path, errno);
  const Descriptor file{fd};
  struct stat status;
  if (::fstat(fd, &status) != 0) return system_error("read", path, errno);
  if (!S_ISREG(status.st_mode)) {
    return unexpected(ErrorKind::usage, fmt::format("`{}` is not a regular file", path.native()));
  }
  if (static_cast<std::uintmax_t>(status.st_size) > max_bytes) {
    return unexpected(ErrorKind::usage, fmt::format("`{}` has {} bytes, more than the {} expected at most",
                                                    path.native(), status.st_size, max_bytes));
  }
  std::string bytes(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t size = 0;
  while (size < bytes.size()) {
    const ssize_t count = ::read(fd, bytes.data() + size, bytes.size() - size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return system_error("read", path, errno);
    if (count == 0) break;
    size += static_cast<std::size_t>(count);
  }
  bytes.resize(size);
  return std::optional<std::string>(std::move(bytes));
}

}  // namespace vicinal::files
