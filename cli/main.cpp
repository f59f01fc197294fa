// vicinal: checks, compiles, runs and explains attention variants.
#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <system_error>

#include "cli/command.h"
#include "cli/interrupt.h"
#include "runtime/engine.h"

namespace {

using namespace vicinal;
using namespace vicinal::cli;

constexpr const char* kExamples =
    "Examples:\n"
    "  vicinal run specs/causal.attn                 a default problem, run and checked\n"
    "  vicinal run specs/alibi.attn --shape heads=8,tokens=4096,head_dim=128 --check\n"
    "  vicinal check specs/*.attn                    errors, warnings and remarks\n"
    "  vicinal emit cuda specs/causal.attn           the CUDA source, no GPU needed\n"
    "  vicinal explain mask specs/neighborhood_2d.attn\n";

void add_global_options(CLI::App& app, Globals& globals) {
  app.add_option("--color", globals.color, "auto, always or never")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->capture_default_str();
  app.add_flag("-q,--quiet", globals.quiet, "Results and errors only");
  app.add_flag("-v,--verbose", globals.verbose, "Say more; twice for more still");
  const auto setting = [&](const char* option, const char* name, const char* help) {
    app.add_option_function<std::string>(
        option, [&globals, name](const std::string& value) { globals.settings[name] = value; }, help);
  };
  setting("--cache-dir", "cache_dir", "Where kernels are cached");
  setting("--cache", "cache", "on, off, memory, refresh or offline");
  setting("--nvrtc", "nvrtc", "The NVRTC library or its folder");
  app.add_flag_function(
      "--no-cache", [&globals](std::int64_t) { globals.settings["cache"] = "off"; },
      "The same as --cache off");
  app.set_version_flag("--version", fmt::format("vicinal {}", version()));
}

// Runs what was chosen; nothing escapes, and a result that standard output did not take is no success.
int act(const Globals& globals) {
  try {
    const int exit = globals.action();
    if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return exit;
    return fail(globals, Error(ErrorKind::usage, "cannot write standard output"));
  } catch (const Error& e) {
    return fail(globals, e);
  } catch (const std::bad_alloc&) {
    return fail(globals, Error(ErrorKind::limit, "out of memory", "make the problem smaller"));
  } catch (const std::system_error& e) {  // fmt's, when standard output is full or closed
    return fail(globals, Error(ErrorKind::usage, e.what()));
  } catch (const std::exception& e) {
    return fail(globals, Error(ErrorKind::internal, e.what()));
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  CLI::App app("Attention variants as text, compiled at run time.", "vicinal");
  app.footer(kExamples);
  app.require_subcommand(0, 1);  // so that a word that is none is named by the error
  app.fallthrough();
  Globals globals;
  add_global_options(app, globals);
  add_run(app, globals);
  add_check(app, globals);
  add_emit(app, globals);
  add_explain(app, globals);
  add_bench(app, globals);
  add_tune(app, globals);
  add_merge(app, globals);
  add_cache(app, globals);
  add_doctor(app, globals);
  add_targets(app, globals);
  add_env(app, globals);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? kOk : kUsage;
  }
  if (!globals.action)
    return fail(globals, Error(ErrorKind::usage, "a subcommand is missing", "see `vicinal --help`"));
  clean_up_on_interrupt();
  runtime::Engine::set_options(globals.settings);
  runtime::Engine::set_warning_sink(
      [&globals](std::string_view warning) { say(globals, fmt::format("warning: {}", warning)); });
  return act(globals);
}
