#include "runtime/cache/directory.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "runtime/files/atomic_file.h"

namespace vicinal::cache {
namespace fs = std::filesystem;
namespace {

// 0 also when something is there already, whatever it is; else the error number.
int make_directory(const fs::path& path, mode_t mode) {
  if (::mkdir(path.c_str(), mode) != 0) return errno == EEXIST ? 0 : errno;
  // The umask may have taken what a group needs.
  return mode == 0700 || ::chmod(path.c_str(), mode) == 0 ? 0 : errno;
}

Result<void> make_directories(const fs::path& path, mode_t mode) {
  int error = make_directory(path, mode);
  if (error == ENOENT && path.has_relative_path()) {
    VICINAL_TRY_VOID(make_directories(path.parent_path(), 0700));
    error = make_directory(path, mode);
  }
  if (error != 0) return files::system_error("create the folder", path, error);
  return {};
}

}  // namespace

Result<void> check_directory(const fs::path& path, Trust trust) {
  struct stat status;
  if (::lstat(path.c_str(), &status) != 0) return files::system_error("look at", path, errno);
  const auto refuse = [&](std::string_view why, std::string help) -> Result<void> {
    return unexpected(ErrorKind::usage, fmt::format("`{}` {}", path.native(), why), std::move(help));
  };
  if (S_ISLNK(status.st_mode)) return refuse("is a symbolic link", "name the folder it leads to");
  if (!S_ISDIR(status.st_mode)) return refuse("is not a folder", {});
  const bool owner_trusted = status.st_uid == ::geteuid() || trust == Trust::group ||
                             (trust == Trust::packaged && status.st_uid == 0);
  if (!owner_trusted) return refuse(fmt::format("belongs to user {}, not to you", status.st_uid), {});
  const mode_t forbidden = trust == Trust::group ? S_IWOTH : S_IWOTH | S_IWGRP;
  if ((status.st_mode & forbidden) != 0) {
    return refuse("can be written by others",
                  fmt::format("chmod {} {}", trust == Trust::group ? "o-w" : "go-w", path.native()));
  }
  return {};
}

Result<void> prepare_directory(const fs::path& path, Trust trust) {
  VICINAL_TRY_VOID(make_directories(path, trust == Trust::group ? 02770 : 0700));
  return check_directory(path, trust);
}

bool runs_with_changed_identity() {
  return ::geteuid() != ::getuid() || ::getegid() != ::getgid();
}

}  // namespace vicinal::cache
