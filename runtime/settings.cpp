#include "runtime/settings.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <memory>
#include <sstream>
#include <system_error>

namespace vicinal::runtime {
namespace fs = std::filesystem;
namespace {

using cache::CacheMode;

constexpr struct {
  std::string_view word;
  CacheMode mode;
} kModes[] = {{"on", CacheMode::on},
              {"off", CacheMode::off},
              {"memory", CacheMode::memory},
              {"refresh", CacheMode::refresh},
              {"offline", CacheMode::offline}};

// Each kind of value: parse() is false when the text does not have the form; show() is the value as text.

bool parse(std::string_view text, fs::path& path) {
  path = text;
  return true;
}
std::string show(const fs::path& path) {
  return path.native();
}

bool parse(std::string_view text, OptionalPath& path) {
  return parse(text, path.emplace());
}
std::string show(const OptionalPath& path) {
  return path ? show(*path) : std::string();
}

bool parse(std::string_view text, CacheMode& mode) {
  const auto row =
      std::find_if(std::begin(kModes), std::end(kModes), [&](auto& r) { return r.word == text; });
  if (row == std::end(kModes)) return false;
  mode = row->mode;
  return true;
}
std::string show(CacheMode mode) {
  return std::string(
      std::find_if(std::begin(kModes), std::end(kModes), [&](auto& r) { return r.mode == mode; })->word);
}

bool parse(std::string_view text, std::uint64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}
std::string show(std::uint64_t number) {
  return std::to_string(number);
}

bool parse_bytes(std::string_view text, std::uint64_t& bytes) {
  constexpr std::string_view kSuffixes = "KMG";
  unsigned shift = 0;
  if (const auto suffix = text.empty() ? kSuffixes.npos : kSuffixes.find(text.back());
      suffix != kSuffixes.npos) {
    shift = 10 * (static_cast<unsigned>(suffix) + 1);
    text.remove_suffix(1);
  }
  if (!parse(text, bytes) || bytes > UINT64_MAX >> shift) return false;
  bytes <<= shift;
  return true;
}

bool parse_days(std::string_view text, std::uint64_t& days) {
  return parse(text, days) && days <= 100 * 366;  // so that it fits any clock
}

bool parse_threads(std::string_view text, std::uint64_t& threads) {
  return parse(text, threads) && threads <= 1024;
}

bool parse_seconds(std::string_view text, std::chrono::seconds& seconds) {
  std::uint64_t count = 0;
  if (!parse(text, count) || count == 0 || count > 24 * 60 * 60) return false;
  seconds = std::chrono::seconds{count};
  return true;
}
std::string show(std::chrono::seconds seconds) {
  return std::to_string(seconds.count());
}

bool parse_sharing(std::string_view text, bool& shared) {
  shared = text == "group";
  return shared || text == "none";
}
std::string show(bool shared) {
  return shared ? "group" : "none";
}

bool parse_switch(std::string_view text, Switch& value) {
  value = text == "on" ? Switch::on : Switch::off;
  return text == "on" || text == "off";
}
std::string show(Switch value) {
  return value == Switch::on ? "on" : "off";
}

// What we write must not depend on the working directory: whoever chooses that would choose what we run.
bool parse_absolute(std::string_view text, OptionalPath& path) {
  return parse(text, path) && path->is_absolute();
}

bool parse_absolute_list(std::string_view text, std::vector<fs::path>& paths) {
  paths.clear();
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(':'), text.size());
    if (end > 0) paths.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return std::all_of(paths.begin(), paths.end(), [](const fs::path& path) { return path.is_absolute(); });
}
std::string show(const std::vector<fs::path>& paths) {
  std::string text;
  for (const auto& path : paths) text += (text.empty() ? "" : ":") + path.native();
  return text;
}

// One setting: its name, the form of its value in words, and how to set and show it.
struct Row {
  std::string_view name;
  std::string_view form;
  bool (*set)(Settings&, std::string_view text, Origin);
  std::string (*show)(const Settings&);
  Origin (*origin)(const Settings&);
};

template <auto Member, auto Parse>
constexpr Row row(std::string_view name, std::string_view form) {
  return {name, form,
          [](Settings& settings, std::string_view text, Origin origin) {
            auto& setting = settings.*Member;
            setting.origin = origin;
            return Parse(text, setting.value);
          },
          [](const Settings& settings) { return show((settings.*Member).value); },
          [](const Settings& settings) { return (settings.*Member).origin; }};
}

constexpr auto parse_any_path = static_cast<bool (*)(std::string_view, OptionalPath&)>(parse);
constexpr auto parse_mode = static_cast<bool (*)(std::string_view, CacheMode&)>(parse);

// THE table. In the environment, a setting is its name in capitals after VICINAL_.
constexpr Row kRows[] = {
    row<&Settings::cache_dir, parse_absolute>("cache_dir", "an absolute path"),
    row<&Settings::cache_mode, parse_mode>("cache", "one of: on, off, memory, refresh, offline"),
    row<&Settings::cache_max_bytes, parse_bytes>(
        "cache_max_bytes", "a number of bytes, with K, M or G if liked; 0 for no limit"),
    row<&Settings::cache_max_age_days, parse_days>("cache_max_age_days", "a number of days; 0 for no limit"),
    row<&Settings::cache_shared_group, parse_sharing>("cache_shared", "one of: none, group"),
    row<&Settings::cache_readonly_dirs, parse_absolute_list>("cache_readonly",
                                                             "absolute paths with `:` between them"),
    row<&Settings::template_dir, parse_any_path>("template_dir", "a folder"),
    row<&Settings::nvrtc_path, parse_any_path>("nvrtc", "a library or a folder"),
    row<&Settings::libcuda_path, parse_any_path>("libcuda", "a library or a folder"),
    row<&Settings::cpu_llvm_path, parse_any_path>("cpu_llvm", "a library or a folder"),
    row<&Settings::threads, parse_threads>("threads", "a number from 0 to 1024; 0 for one per processor"),
    row<&Settings::state_dir, parse_absolute>("state_dir", "an absolute path"),
    row<&Settings::config_dir, parse_absolute>("config_dir", "an absolute path"),
    row<&Settings::compile_timeout, parse_seconds>("compile_timeout", "seconds, from 1 to 86400"),
    row<&Settings::check_plans, parse_switch>("check_plans", "one of: on, off"),
};

const Row* find_row(std::string_view name) {
  const auto found =
      std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& r) { return r.name == name; });
  return found == std::end(kRows) ? nullptr : found;
}

std::string variable_of(const Row& row) {
  std::string variable = "VICINAL_";
  for (const char c : row.name) variable += c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return variable;
}

Result<void> set(Settings& settings, const Row& row, std::string_view text, Origin origin,
                 std::string_view where) {
  if (row.set(settings, text, origin)) return {};
  return unexpected(ErrorKind::usage, fmt::format("{} is `{}`, which is not {}", where, text, row.form),
                    fmt::format("give {}", row.form));
}

// An unset variable and an empty one are the same, as the XDG specification has it.
std::string_view lookup(const GetEnv& get_env, const std::string& name) {
  const char* value = get_env(name.c_str());
  return value == nullptr ? std::string_view() : std::string_view(value);
}

// $XDG_..._HOME/vicinal, or the same below the home; relative values count as absent, as the specification
// says.
OptionalPath standard_dir(const GetEnv& get_env, const std::string& variable, std::string_view below_home) {
  if (const fs::path base = lookup(get_env, variable); base.is_absolute()) return base / "vicinal";
  if (const fs::path home = lookup(get_env, "HOME"); home.is_absolute()) return home / below_home / "vicinal";
  return std::nullopt;
}

// The text of the config file: empty when there is none or when somebody else could have written it.
std::string read_config(const fs::path& path, std::vector<std::string>& warnings) {
  const auto leave_aside = [&](std::string_view why) {
    warnings.push_back(fmt::format("the config file `{}` is not used: {}", path.native(), why));
    return std::string();
  };
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) return {};
  if (fd < 0) return leave_aside(std::generic_category().message(errno));
  const auto close_file = [](const int* file) { ::close(*file); };
  const std::unique_ptr<const int, decltype(close_file)> closer(&fd, close_file);
  struct stat status;
  if (::fstat(fd, &status) != 0) return leave_aside(std::generic_category().message(errno));
  if (!S_ISREG(status.st_mode)) return leave_aside("it is not a file");
  if (status.st_uid != ::geteuid()) return leave_aside("it belongs to another user");
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) return leave_aside("others can write to it (chmod go-w)");
  constexpr off_t kMaxSize = 1 << 16;
  if (status.st_size > kMaxSize) return leave_aside("it is too large");
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  const ssize_t size = ::read(fd, text.data(), text.size());
  if (size < 0) return leave_aside(std::generic_category().message(errno));
  text.resize(static_cast<std::size_t>(size));
  return text;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r";
  text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
  return text.substr(0, text.find_last_not_of(kSpace) + 1);
}

// Lines of `key = value`; `#` begins a comment where a line or a word could begin.
Result<void> apply_config(Settings& settings, const fs::path& path) {
  std::istringstream lines(read_config(path, settings.warnings));
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    std::string_view text = line;
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '#' && (i == 0 || text[i - 1] == ' ' || text[i - 1] == '\t')) text = text.substr(0, i);
    }
    text = trimmed(text);
    if (text.empty()) continue;
    const std::string where = fmt::format("{}:{}", path.native(), number);
    const std::size_t equals = text.find('=');
    if (equals == text.npos) {
      return unexpected(ErrorKind::usage, fmt::format("{}: `{}` is not `key = value`", where, text));
    }
    const std::string_view key = trimmed(text.substr(0, equals));
    const Row* row = find_row(key);
    if (row == nullptr || key == "config_dir") {  // perhaps of a newer version
      settings.warnings.push_back(fmt::format("{}: unknown setting `{}`", where, key));
      continue;
    }
    VICINAL_TRY_VOID(set(settings, *row, trimmed(text.substr(equals + 1)), Origin::config,
                         fmt::format("{}: {}", where, key)));
  }
  return {};
}

Result<void> apply_environment(Settings& settings, const GetEnv& get_env) {
  for (const Row& row : kRows) {
    const std::string variable = variable_of(row);
    const std::string_view value = lookup(get_env, variable);
    if (!value.empty()) VICINAL_TRY_VOID(set(settings, row, value, Origin::environment, variable));
  }
  return {};
}

Result<void> apply_options(Settings& settings, const OptionValues& options) {
  for (const auto& [name, value] : options) {
    const Row* row = find_row(name);
    if (row == nullptr) return unexpected(ErrorKind::usage, fmt::format("unknown setting `{}`", name));
    VICINAL_TRY_VOID(set(settings, *row, value, Origin::option, name));
  }
  return {};
}

}  // namespace

std::string_view name_of(Origin origin) {
  switch (origin) {
    case Origin::option: return "option";
    case Origin::environment: return "environment";
    case Origin::config: return "config";
    case Origin::fallback: break;
  }
  return "default";
}

GetEnv process_environment() {
  return [](const char* name) -> const char* { return std::getenv(name); };
}

Result<Settings> read_settings(const GetEnv& get_env, const OptionValues& options) {
  // Where the config file is, only the command line and the environment can say.
  Settings where;
  where.config_dir.value = standard_dir(get_env, "XDG_CONFIG_HOME", ".config");
  VICINAL_TRY_VOID(apply_environment(where, get_env));
  VICINAL_TRY_VOID(apply_options(where, options));

  Settings settings;
  settings.cache_dir.value = standard_dir(get_env, "XDG_CACHE_HOME", ".cache");
  settings.state_dir.value = standard_dir(get_env, "XDG_STATE_HOME", ".local/state");
  settings.config_dir = where.config_dir;
  if (settings.config_dir.value) {
    VICINAL_TRY_VOID(apply_config(settings, *settings.config_dir.value / "config"));
  }
  VICINAL_TRY_VOID(apply_environment(settings, get_env));
  VICINAL_TRY_VOID(apply_options(settings, options));
  return settings;
}

std::vector<SettingRow> describe(const Settings& settings) {
  std::vector<SettingRow> rows;
  for (const Row& row : kRows) {
    rows.push_back({std::string(row.name), variable_of(row), row.show(settings), row.origin(settings)});
  }
  return rows;
}

cache::CacheOptions cache_options(const Settings& settings, std::function<void(std::string_view)> warn) {
  cache::CacheOptions options;
  options.directory = settings.cache_dir.value;
  options.packaged = settings.cache_readonly_dirs.value;
  options.mode = settings.cache_mode.value;
  options.shared_with_group = settings.cache_shared_group.value;
  options.max_bytes = settings.cache_max_bytes.value;
  options.max_age = std::chrono::hours{24 * settings.cache_max_age_days.value};
  // Somebody else's compilation may take its whole time, and then some for the writing.
  options.patience = settings.compile_timeout.value + std::chrono::seconds{10};
  options.warn = std::move(warn);
  return options;
}

}  // namespace vicinal::runtime
