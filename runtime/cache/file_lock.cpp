#include "runtime/cache/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <thread>

#include "runtime/files/atomic_file.h"

namespace vicinal::cache {
namespace fs = std::filesystem;
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

// Pruning removes lock files that nobody holds; a lock on a removed file excludes nobody.
bool is_still_at(int fd, const fs::path& path) {
  struct stat held, there;
  return ::fstat(fd, &held) == 0 && ::stat(path.c_str(), &there) == 0 && held.st_ino == there.st_ino &&
         held.st_dev == there.st_dev;
}

// 0, or the error number; EWOULDBLOCK when the time is over.
int flock_until(int fd, Clock::time_point deadline) {
  milliseconds pause{1};
  while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK || Clock::now() >= deadline) return errno;
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, milliseconds{20});
  }
  return 0;
}

}  // namespace

Result<std::optional<FileLock>> FileLock::acquire(const fs::path& path, mode_t mode, milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  for (;;) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0) return files::system_error("open the lock", path, errno);
    FileLock lock(fd);
    const int error = flock_until(fd, deadline);
    if (error == EWOULDBLOCK) return std::optional<FileLock>();
    if (error != 0) return files::system_error("lock", path, error);
    if (is_still_at(fd, path)) return std::optional<FileLock>(std::move(lock));
  }
}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace vicinal::cache
