// What the tests of the kernel cache share: keys and payloads to cache, and children that fail on command.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <initializer_list>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/support/hash.h"
#include "runtime/cache/kernel_cache.h"
#include "tests/unit/runtime/temporary_folder.h"

namespace vicinal::test {

inline cache::KernelKey key_of(int number) {
  return {.source = fmt::format("extern \"C\" __global__ void k() {{ /* {} */ }}", number),
          .entry = "k",
          .arch = "sm_90a",
          .options = {"--std=c++20", "--use_fast_math"},
          .compiler = "nvrtc 13.0 0123456789abcdef",
          .emitter = "0.1.0",
          .extra = {{"templates", "fedcba9876543210"}}};
}

// A payload that tells which key it belongs to.
inline cache::Payload payload_of(int number, std::size_t size = 1000) {
  const std::string seed = fmt::format("cubin {};", number);
  std::string binary;
  while (binary.size() < size) binary += seed;
  binary.resize(size);
  return {binary, "a log", fmt::format("registers={}", number)};
}

inline std::string encoded(int number, std::size_t size = 1000) {
  return cache::encode_entry(cache::record(key_of(number)), payload_of(number, size));
}

inline std::string flipped(std::string bytes, std::size_t at, int mask = 0x10) {
  bytes[at] = static_cast<char>(bytes[at] ^ mask);
  return bytes;
}

inline cache::KernelCache::Compile compile_of(int number, int* calls = nullptr) {
  return [=]() -> Result<cache::Payload> {
    if (calls != nullptr) ++*calls;
    return payload_of(number);
  };
}

// Collects warnings from any thread.
class Warnings {
 public:
  std::function<void(std::string_view)> sink() {
    return [this](std::string_view message) {
      const std::lock_guard lock(mutex_);
      messages_.emplace_back(message);
    };
  }
  std::vector<std::string> all() const {
    const std::lock_guard lock(mutex_);
    return messages_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> messages_;
};

// Runs work in a forked child and returns its wait status. The child must not use doctest: it answers by its
// exit status, 0 for good.
template <class Work>
int status_in_child(Work work) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(work());
  int status = -1;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

inline bool exited_well(int status) {
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// The same as a user without privileges, who owns the folder; as who we are, unless that is root.
template <class Work>
int status_as_ordinary_user(const std::filesystem::path& folder, Work work) {
  constexpr uid_t kNobody = 65534;
  const bool is_root = ::geteuid() == 0;
  if (is_root) {
    REQUIRE(::chown(folder.c_str(), kNobody, kNobody) == 0);
  }
  return status_in_child([&] {
    if (is_root && (::setgroups(0, nullptr) != 0 || ::setgid(kNobody) != 0 || ::setuid(kNobody) != 0))
      return 99;
    return work();
  });
}

// A system call to strike at; with flags, only if its third argument has one of them.
struct Strike {
  long call;
  unsigned flags = 0;
};

// From here on, the calling process (a child of a test) suffers `action` at each of the system calls:
// SECCOMP_RET_KILL_PROCESS as by kill -9, or SECCOMP_RET_ERRNO | an error number. False where that is not
// possible.
inline bool arm(std::initializer_list<Strike> strikes, unsigned action) {
  std::vector<sock_filter> program;
  const auto load = [&](std::size_t offset) {
    program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<unsigned>(offset)));
  };
  for (const Strike& strike : strikes) {
    load(offsetof(seccomp_data, nr));
    const unsigned char skip = strike.flags != 0 ? 3 : 1;
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(strike.call), 0, skip));
    if (strike.flags != 0) {
      load(offsetof(seccomp_data, args[2]));
      program.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, strike.flags, 0, 1));
    }
    program.push_back(BPF_STMT(BPF_RET | BPF_K, action));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog filter = {static_cast<unsigned short>(program.size()), program.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) == 0;
}

// Moves a file's last use into the past.
inline void age(const std::filesystem::path& path, long seconds) {
  struct timespec times[2];
  ::clock_gettime(CLOCK_REALTIME, &times[0]);
  times[0].tv_sec -= seconds;
  times[1] = times[0];
  REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
}

}  // namespace vicinal::test
