// Runs the built command as a user would: a process of its own, in an empty working directory, with a home, a
// cache and an environment that no other test and no user shares.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/files/npy.h"

namespace vicinal::testing {

struct Outcome {
  int exit = 0;  // 128 + N when signal N ended it, as a shell says it
  std::string out, err;

  // Standard output as one JSON document with this schema; a test failure where it is not.
  nlohmann::json json(std::string_view schema) const;
};

struct Given {
  std::string standard_input;
  std::map<std::string, std::string> environment;  // added to the sandbox's
  std::string standard_output;                     // a path in place of Outcome::out
};

class Sandbox {
 public:
  Sandbox();
  Sandbox(const Sandbox&) = delete;
  Sandbox& operator=(const Sandbox&) = delete;
  ~Sandbox();

  // Checks besides that no file was left in the working directory or the home, and that no sanitizer spoke.
  Outcome run(const std::vector<std::string>& arguments, const Given& given = {}) const;
  // The same, ended by a signal, as Ctrl-C does, once it has used this much processor time or `ready` says
  // so.
  Outcome interrupt(const std::vector<std::string>& arguments, double after_seconds) const;
  Outcome interrupt(const std::vector<std::string>& arguments, const std::function<bool()>& ready,
                    int signal) const;

  // Paths in the folder that tests keep their files in.
  std::string path(std::string_view name) const { return (root_ / "files" / name).string(); }
  std::filesystem::path cache() const { return root_ / "cache"; }
  bool holds(std::string_view name) const { return std::filesystem::exists(path(name)); }
  std::size_t count_files() const;
  // Whether a file there is being written: the temporary one of a later output, with something in it.
  bool holds_part_of_a_file() const;

  // Each returns the path that it wrote.
  std::string write(std::string_view name, std::string_view text) const;
  std::string write_npy(std::string_view name, DType dtype, std::vector<std::int64_t> shape,
                        const std::function<double(std::int64_t)>& element) const;
  std::vector<double> read_npy(std::string_view name, const std::vector<std::int64_t>& shape) const;
  std::string read(std::string_view name) const;

 private:
  pid_t start(const std::vector<std::string>& arguments, const Given& given) const;
  Outcome finish(pid_t process, const Given& given) const;

  std::filesystem::path root_;
};

// "specs/NAME" of the source tree.
std::string gallery_spec(std::string_view name);
bool has(std::string_view text, std::string_view part);
std::string slurp(const std::filesystem::path& path);

}  // namespace vicinal::testing
