// The one place that reads the environment. A setting comes from a command-line option, else from the
// environment, else from the user's config file, else from a default, and remembers which.
#pragma once

#include <vicinal/result.h>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/cache/cache_options.h"

namespace vicinal::runtime {

enum class Origin : std::uint8_t { option, environment, config, fallback };
std::string_view name_of(Origin origin);

template <class T>
struct Setting {
  T value{};
  Origin origin = Origin::fallback;
};

enum class Switch : bool { off, on };

using OptionalPath = std::optional<std::filesystem::path>;

struct Settings {
  Setting<OptionalPath> cache_dir;  // none when no home is known: memory only
  Setting<cache::CacheMode> cache_mode;
  Setting<std::uint64_t> cache_max_bytes{std::uint64_t{1} << 30};  // 0: no limit
  Setting<std::uint64_t> cache_max_age_days{90};                   // 0: no limit
  Setting<bool> cache_shared_group;
  Setting<std::vector<std::filesystem::path>> cache_readonly_dirs;
  Setting<OptionalPath> template_dir;   // headers from disk instead of the built-in ones
  Setting<OptionalPath> nvrtc_path;     // a library or the folder it is in
  Setting<OptionalPath> libcuda_path;   // likewise
  Setting<OptionalPath> cpu_llvm_path;  // likewise, of the code generator for the CPU
  Setting<std::uint64_t> threads;       // of the CPU backends; 0: one per processor
  Setting<OptionalPath> state_dir;
  Setting<OptionalPath> config_dir;
  Setting<std::chrono::seconds> compile_timeout{std::chrono::seconds{30}};
  // Whether a run with a plan made from data first makes sure that the data still give that plan. It waits
  // for the stream: for finding mistakes.
  Setting<Switch> check_plans;

  std::vector<std::string> warnings;  // what was left aside, such as an unsafe config file
};

// The value of an environment variable, or nullptr.
using GetEnv = std::function<const char*(const char* name)>;
GetEnv process_environment();

// The command line's own values, by the name that a setting has in the config file ("cache_dir").
using OptionValues = std::map<std::string, std::string>;

// A malformed value is an error that names where it stands and the form it should have.
Result<Settings> read_settings(const GetEnv& get_env, const OptionValues& options = {});

struct SettingRow {
  std::string name;      // in the config file
  std::string variable;  // in the environment
  std::string value;
  Origin origin;
};
std::vector<SettingRow> describe(const Settings& settings);

cache::CacheOptions cache_options(const Settings& settings, std::function<void(std::string_view)> warn);

}  // namespace vicinal::runtime
