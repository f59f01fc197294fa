// Whether a folder may be trusted with machine code that will be run, and making it if it is not there.
#pragma once

#include <vicinal/result.h>
#include <filesystem>

namespace vicinal::cache {

enum class Trust {
  own,       // must be the user's own, and writable by nobody else
  group,     // may be writable by a group: the user has opted in
  packaged,  // read only: may also be the system administrator's
};

// The folder is refused when it is a link, belongs to somebody else, or others may write to it.
Result<void> check_directory(const std::filesystem::path& path, Trust trust);

// Makes the folder and the missing ones above it, private (0700, or 02770 for a group), then checks it.
Result<void> prepare_directory(const std::filesystem::path& path, Trust trust);

// A set-user-ID program must not let its user's environment choose what it runs.
bool runs_with_changed_identity();

}  // namespace vicinal::cache
