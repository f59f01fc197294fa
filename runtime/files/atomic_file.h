// Files that are there whole or not at all. A writer fills a temporary file in the target's own folder and
// renames it over the target, so a reader sees the old content or the new, never a part, even if the writer
// is killed.
#pragma once

#include <sys/types.h>

#include <vicinal/result.h>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace vicinal::files {

// The end of every temporary's name; what is left of a killed writer is found by it.
inline constexpr std::string_view kTemporarySuffix = ".tmp";

class AtomicFile {
 public:
  // With a mode, the file gets exactly that; without one, what the umask makes of 0666.
  static Result<AtomicFile> create(const std::filesystem::path& target, std::optional<mode_t> mode = {});
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();  // removes the temporary unless commit() succeeded

  Result<void> append(std::string_view bytes);
  // Durable: synced to the device before the rename, and the folder after it, as far as it can be.
  Result<void> commit(bool durable);

 private:
  AtomicFile(std::filesystem::path target, std::filesystem::path temporary, int fd);
  int rename_to_target();

  std::filesystem::path target_;
  std::filesystem::path temporary_;
  int fd_;
};

// For a process that a signal may end at any time, and that wants no temporary left behind then. Libraries
// leave both to the program: they take hold of the whole process.

// Has every temporary remembered that is made from here on.
void remember_temporaries();
// Removes those that there are, from a thread of the process that is about to end; who makes or commits a
// file from here on waits for that end. Takes a lock, and so is not for signal handlers.
void abandon_temporaries();

// The whole content of a regular file; nullopt where there is none. Never follows a link in the last
// component, and never maps: a mapped file that shrinks, or a lost network mount, is a SIGBUS.
Result<std::optional<std::string>> read_whole_file(const std::filesystem::path& path, std::size_t max_bytes);

// 128 random bits as 32 hexadecimal digits: process ids and clocks repeat across hosts.
std::string random_name();

// "cannot WHAT `PATH`: the system's words for errno".
Unexpected system_error(std::string_view what, const std::filesystem::path& path, int error_number);

}  // namespace vicinal::files
