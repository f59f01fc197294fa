#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>

#include "runtime/settings.h"
#include "tests/unit/runtime/temporary_folder.h"

using namespace vicinal;
using namespace vicinal::runtime;
using vicinal::test::TemporaryFolder;
using vicinal::test::write_text;

namespace {

using Environment = std::map<std::string, std::string>;

Result<Settings> read(const Environment& environment, const OptionValues& options = {}) {
  const auto get = [&](const char* name) -> const char* {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  };
  return read_settings(get, options);
}

// The error of one malformed variable, which must be named.
Error error_of(const std::string& variable, const std::string& value) {
  const auto settings = read({{variable, value}});
  REQUIRE_FALSE(settings);
  CHECK(settings.error().kind == ErrorKind::usage);
  CHECK(settings.error().message.find(variable) != std::string::npos);
  return settings.error();
}

// An environment whose config file holds `text`.
Environment with_config(const TemporaryFolder& folder, std::string_view text) {
  std::filesystem::create_directories(folder / "vicinal");
  write_text(folder / "vicinal/config", text);
  REQUIRE(::chmod((folder / "vicinal/config").c_str(), 0600) == 0);
  return {{"XDG_CONFIG_HOME", folder.path().native()}};
}

}  // namespace

TEST_CASE("settings: an empty environment has defaults and no folders") {
  const auto settings = read({});
  REQUIRE(settings);
  CHECK_FALSE(settings->cache_dir.value);
  CHECK_FALSE(settings->state_dir.value);
  CHECK_FALSE(settings->config_dir.value);
  CHECK_FALSE(settings->template_dir.value);
  CHECK(settings->cache_mode.value == cache::CacheMode::on);
  CHECK(settings->cache_max_bytes.value == 1073741824);
  CHECK(settings->compile_timeout.value == std::chrono::seconds{30});
  for (const auto& row : describe(*settings)) CHECK(row.origin == Origin::fallback);
}

TEST_CASE("settings: folders by the home, by XDG, and by our own variables") {
  auto settings = read({{"HOME", "/home/u"}});
  CHECK(settings.value().cache_dir.value == "/home/u/.cache/vicinal");
  CHECK(settings.value().state_dir.value == "/home/u/.local/state/vicinal");
  CHECK(settings.value().config_dir.value == "/home/u/.config/vicinal");
  settings = read({{"HOME", "/home/u"}, {"XDG_CACHE_HOME", "/x"}});
  CHECK(settings.value().cache_dir.value == "/x/vicinal");
  settings = read({{"HOME", "/home/u"}, {"XDG_CACHE_HOME", "relative"}});
  CHECK(settings.value().cache_dir.value == "/home/u/.cache/vicinal");
  CHECK_FALSE(read({{"HOME", "relative"}}).value().cache_dir.value);
  settings = read({{"HOME", "/home/u"}, {"XDG_CACHE_HOME", "/x"}, {"VICINAL_CACHE_DIR", "/y"}});
  CHECK(settings.value().cache_dir.value == "/y");
  CHECK(settings.value().cache_dir.origin == Origin::environment);
  CHECK(read({{"HOME", "/h"}, {"VICINAL_CACHE_DIR", ""}}).value().cache_dir.value == "/h/.cache/vicinal");
}

TEST_CASE("settings: every variable") {
  const auto settings = read({{"VICINAL_CACHE", "offline"},
                              {"VICINAL_CACHE_MAX_BYTES", "3M"},
                              {"VICINAL_CACHE_MAX_AGE_DAYS", "7"},
                              {"VICINAL_CACHE_SHARED", "group"},
                              {"VICINAL_CACHE_READONLY", "/a::/b:"},
                              {"VICINAL_TEMPLATE_DIR", "templates"},
                              {"VICINAL_NVRTC", "/opt/cuda/lib64"},
                              {"VICINAL_LIBCUDA", "/lib/libcuda.so.1"},
                              {"VICINAL_CPU_LLVM", "/opt/vicinal"},
                              {"VICINAL_THREADS", "3"},
                              {"VICINAL_STATE_DIR", "/s"},
                              {"VICINAL_CONFIG_DIR", "/c"},
                              {"VICINAL_COMPILE_TIMEOUT", "5"},
                              {"VICINAL_CHECK_PLANS", "on"}});
  REQUIRE(settings);
  CHECK(settings->cache_mode.value == cache::CacheMode::offline);
  CHECK(settings->cache_max_bytes.value == 3 << 20);
  CHECK(settings->cache_shared_group.value);
  CHECK(settings->cache_readonly_dirs.value == std::vector<std::filesystem::path>{"/a", "/b"});
  CHECK(settings->nvrtc_path.value == "/opt/cuda/lib64");
  CHECK(settings->cpu_llvm_path.value == "/opt/vicinal");
  CHECK(settings->threads.value == 3);
  std::map<std::string, std::string> shown;
  for (const auto& row : describe(*settings)) {
    if (row.name != "cache_dir") CHECK(row.origin == Origin::environment);
    shown[row.variable] = row.value;
  }
  CHECK(shown["VICINAL_CACHE"] == "offline");
  CHECK(shown["VICINAL_CACHE_MAX_BYTES"] == "3145728");
  CHECK(shown["VICINAL_CACHE_READONLY"] == "/a:/b");
  CHECK(shown["VICINAL_CACHE_SHARED"] == "group");
  CHECK(shown["VICINAL_CONFIG_DIR"] == "/c");
  CHECK(shown["VICINAL_COMPILE_TIMEOUT"] == "5");
  CHECK(shown["VICINAL_CHECK_PLANS"] == "on");

  const auto options = cache_options(*settings, [](std::string_view) {});
  CHECK(options.mode == cache::CacheMode::offline);
  CHECK(options.max_age == std::chrono::hours{168});
  CHECK(options.packaged.size() == 2);
  CHECK(options.shared_with_group);
}

TEST_CASE("settings: malformed values name the variable and the form") {
  CHECK(error_of("VICINAL_CACHE", "maybe").message ==
        "VICINAL_CACHE is `maybe`, which is not one of: on, off, memory, refresh, offline");
  for (const auto* size : {"K", "-1", "1.5G", "1T", "12 K", "99999999999999999999", "17179869184G", "0x10"}) {
    CHECK(error_of("VICINAL_CACHE_MAX_BYTES", size).help.find("K, M or G") != std::string::npos);
  }
  error_of("VICINAL_CACHE_MAX_AGE_DAYS", "soon");
  error_of("VICINAL_CACHE_MAX_AGE_DAYS", "1000000");
  error_of("VICINAL_CACHE_SHARED", "world");
  error_of("VICINAL_CACHE_DIR", "relative/path");
  error_of("VICINAL_CACHE_READONLY", "/a:b");
  error_of("VICINAL_STATE_DIR", "s");
  error_of("VICINAL_CONFIG_DIR", "c");
  error_of("VICINAL_COMPILE_TIMEOUT", "0");
  error_of("VICINAL_COMPILE_TIMEOUT", "30s");
  error_of("VICINAL_CHECK_PLANS", "yes");
}

TEST_CASE("settings: option over environment over config file over default") {
  const TemporaryFolder folder;
  Environment environment = with_config(folder,
                                        "# a comment\n\n  cache_max_bytes = 1K   # of a folder\n"
                                        "cache=memory\r\ncompile_timeout = 7\ntemplate_dir = /a#b\n");
  environment.emplace("VICINAL_CACHE", "refresh");
  environment.emplace("VICINAL_COMPILE_TIMEOUT", "8");
  const auto settings = read(environment, {{"compile_timeout", "9"}});
  REQUIRE(settings);
  CHECK(settings->warnings.empty());
  CHECK(settings->cache_max_bytes.value == 1024);
  CHECK(settings->cache_max_bytes.origin == Origin::config);
  CHECK(settings->cache_mode.value == cache::CacheMode::refresh);
  CHECK(settings->cache_mode.origin == Origin::environment);
  CHECK(settings->compile_timeout.value == std::chrono::seconds{9});
  CHECK(settings->compile_timeout.origin == Origin::option);
  CHECK(settings->template_dir.value == "/a#b");
  CHECK(name_of(settings->cache_max_age_days.origin) == "default");
  CHECK_FALSE(read({}, {{"no_such", "1"}}));
  CHECK_FALSE(read({}, {{"cache", "never"}}));
}

TEST_CASE("settings: a config file with mistakes") {
  const TemporaryFolder folder;
  const auto unknown = read(with_config(folder, "colour = blue\nconfig_dir = /x\n"));
  REQUIRE(unknown);
  CHECK(unknown->warnings.size() == 2);
  const auto malformed = read(with_config(folder, "\ncache_max_bytes = many\n"));
  REQUIRE_FALSE(malformed);
  CHECK(malformed.error().message.find("config:2: cache_max_bytes is `many`") != std::string::npos);
  CHECK_FALSE(read(with_config(folder, "just words\n")));
}

TEST_CASE("settings: a config file that others could have written is left aside") {
  const TemporaryFolder folder;
  const Environment environment = with_config(folder, "cache = off\n");
  const auto path = folder / "vicinal/config";
  for (const mode_t mode : {0620, 0602}) {
    REQUIRE(::chmod(path.c_str(), mode) == 0);
    const auto settings = read(environment);
    REQUIRE(settings);
    CHECK(settings->cache_mode.value == cache::CacheMode::on);
    REQUIRE(settings->warnings.size() == 1);
    CHECK(settings->warnings[0].find(path.native()) != std::string::npos);
  }
  REQUIRE(::chmod(path.c_str(), 0644) == 0);
  CHECK(read(environment).value().cache_mode.value == cache::CacheMode::off);
  if (::geteuid() != 0) {
    MESSAGE("skipped: a config file of another user, which only root can make");
    return;
  }
  REQUIRE(::chown(path.c_str(), 65534, 65534) == 0);
  CHECK(read(environment).value().warnings.size() == 1);
}
