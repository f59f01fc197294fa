// A lock between the processes of a host, by flock: the kernel releases it with its process, so none is ever
// left behind by a crash.
#pragma once

#include <sys/types.h>

#include <vicinal/result.h>
#include <chrono>
#include <filesystem>
#include <optional>

namespace vicinal::cache {

class FileLock {
 public:
  // Makes the file with `mode` if it is not there. Waits at most `patience`; nullopt when somebody else still
  // holds the lock then. An error where locks do not work.
  static Result<std::optional<FileLock>> acquire(const std::filesystem::path& path, mode_t mode,
                                                 std::chrono::milliseconds patience);
  FileLock(FileLock&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();  // releases; the file stays, since others may be waiting on it

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace vicinal::cache
