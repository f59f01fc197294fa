#include "tests/cli/sandbox.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <thread>

#include "runtime/files/atomic_file.h"
#include "runtime/host/elements.h"

namespace vicinal::testing {
namespace fs = std::filesystem;
namespace {

bool is_empty_below(const fs::path& folder) {
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (!entry.is_directory()) return false;
  return true;
}

// Seconds of processor time, user and system, that a process has used so far.
double processor_seconds(pid_t process) {
  std::string stat = slurp(fmt::format("/proc/{}/stat", process));
  // The second field, a name in parentheses, may hold spaces; utime and stime are the 14th and 15th.
  std::istringstream fields(stat.substr(std::min(stat.size(), stat.rfind(')') + 1)));
  std::vector<std::string> words{std::istream_iterator<std::string>(fields), {}};
  if (words.size() < 13) return 0;
  return (std::stod(words[11]) + std::stod(words[12])) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

bool running(pid_t process) {
  siginfo_t info{};
  return ::waitid(P_PID, static_cast<id_t>(process), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid == 0;
}

void signal_when(const std::function<bool()>& ready, pid_t process, int signal) {
  while (running(process) && !ready()) std::this_thread::sleep_for(std::chrono::microseconds(200));
  ::kill(process, signal);
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (std::string& s : strings) result.push_back(s.data());
  result.push_back(nullptr);
  return result;
}

}  // namespace

nlohmann::json Outcome::json(std::string_view schema) const {
  nlohmann::json document = nlohmann::json::parse(out, nullptr, /*allow_exceptions=*/false);
  REQUIRE_MESSAGE(!document.is_discarded(), out, err);
  CHECK(document.value("schema", "") == schema);
  return document;
}

Sandbox::Sandbox() {
  std::string pattern = (fs::temp_directory_path() / "vicinal-cli-XXXXXX").string();
  REQUIRE(::mkdtemp(pattern.data()) != nullptr);
  root_ = pattern;
  for (const char* folder : {"work", "home", "files", "streams"}) fs::create_directory(root_ / folder);
}

Sandbox::~Sandbox() {
  std::error_code ignored;
  fs::remove_all(root_, ignored);
}

pid_t Sandbox::start(const std::vector<std::string>& arguments, const Given& given) const {
  const fs::path streams = root_ / "streams", work = root_ / "work";
  std::ofstream(streams / "in", std::ios::binary) << given.standard_input;
  const std::string in = streams / "in", err = streams / "err",
                    out = given.standard_output.empty() ? streams / "out" : fs::path(given.standard_output);

  std::map<std::string, std::string> variables = {{"HOME", root_ / "home"},
                                                  {"PATH", "/usr/bin:/bin"},
                                                  {"VICINAL_CACHE_DIR", cache()},
                                                  // The same on machines with and without a GPU.
                                                  {"VICINAL_LIBCUDA", root_ / "no-driver-here"}};
  for (const char* name : {"VICINAL_NVRTC", "CUDA_HOME", "CUDA_PATH", "LD_LIBRARY_PATH", "TMPDIR",
                           "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"})
    if (const char* value = std::getenv(name)) variables[name] = value;
  for (const auto& [name, value] : given.environment) variables[name] = value;
  std::vector<std::string> environment, words = {"vicinal"};
  for (const auto& [name, value] : variables) environment.push_back(name + "=" + value);
  words.insert(words.end(), arguments.begin(), arguments.end());

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  constexpr int kWrite = O_WRONLY | O_CREAT | O_TRUNC;
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, in.c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out.c_str(), kWrite, 0600);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(), kWrite, 0600);
  posix_spawn_file_actions_addchdir_np(&actions, work.c_str());
  pid_t process = 0;
  const int failed = ::posix_spawn(&process, VICINAL_COMMAND, &actions, nullptr, pointers(words).data(),
                                   pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  REQUIRE_MESSAGE(failed == 0, "cannot start " VICINAL_COMMAND);
  return process;
}

Outcome Sandbox::finish(pid_t process, const Given& given) const {
  int status = 0;
  REQUIRE(::waitpid(process, &status, 0) == process);
  Outcome outcome;
  outcome.exit = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  if (given.standard_output.empty()) outcome.out = slurp(root_ / "streams" / "out");
  outcome.err = slurp(root_ / "streams" / "err");
  CHECK(is_empty_below(root_ / "work"));
  CHECK(is_empty_below(root_ / "home"));
  CHECK_MESSAGE(!has(outcome.err, "Sanitizer"), outcome.err);
  CHECK_MESSAGE(!has(outcome.err, "runtime error:"), outcome.err);
  return outcome;
}

Outcome Sandbox::run(const std::vector<std::string>& arguments, const Given& given) const {
  return finish(start(arguments, given), given);
}

Outcome Sandbox::interrupt(const std::vector<std::string>& arguments, double after_seconds) const {
  const pid_t process = start(arguments, {});
  signal_when([&] { return processor_seconds(process) >= after_seconds; }, process, SIGINT);
  return finish(process, {});
}

Outcome Sandbox::interrupt(const std::vector<std::string>& arguments, const std::function<bool()>& ready,
                           int signal) const {
  const pid_t process = start(arguments, {});
  signal_when(ready, process, signal);
  return finish(process, {});
}

std::size_t Sandbox::count_files() const {
  const fs::directory_iterator files(root_ / "files");
  return static_cast<std::size_t>(std::distance(begin(files), end(files)));
}

bool Sandbox::holds_part_of_a_file() const {
  for (const auto& entry : fs::directory_iterator(root_ / "files")) {
    std::error_code gone;
    if (entry.path().extension() == files::kTemporarySuffix && fs::file_size(entry.path(), gone) > 0 && !gone)
      return true;
  }
  return false;
}

std::string Sandbox::write(std::string_view name, std::string_view text) const {
  std::ofstream(path(name), std::ios::binary) << text;
  return path(name);
}

std::string Sandbox::write_npy(std::string_view name, DType dtype, std::vector<std::int64_t> shape,
                               const std::function<double(std::int64_t)>& element) const {
  files::Array array{dtype, std::move(shape), {}};
  std::int64_t elements = 1;
  for (const std::int64_t extent : array.shape) elements *= extent;
  array.bytes.resize(static_cast<std::size_t>(elements) * size_of(dtype));
  for (std::int64_t i = 0; i < elements; ++i) host::store_element(array.bytes.data(), dtype, i, element(i));
  files::write_npy(path(name), array).value();
  return path(name);
}

std::vector<double> Sandbox::read_npy(std::string_view name, const std::vector<std::int64_t>& shape) const {
  const files::Array array = files::read_npy(path(name)).value();
  CHECK(array.dtype == DType::f32);
  REQUIRE(array.shape == shape);
  std::vector<double> elements(array.bytes.size() / size_of(array.dtype));
  for (std::size_t i = 0; i < elements.size(); ++i)
    elements[i] = host::load_element(array.bytes.data(), array.dtype, static_cast<std::int64_t>(i));
  return elements;
}

std::string Sandbox::read(std::string_view name) const {
  return slurp(path(name));
}

std::string gallery_spec(std::string_view name) {
  return fmt::format("{}/specs/{}.attn", VICINAL_SOURCE_DIR, name);
}

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

std::string slurp(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace vicinal::testing
