// What every subcommand shares: global options, where output goes, exit codes.
#pragma once

#include <vicinal/vicinal.h>
#include <CLI/CLI.hpp>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "compiler/check/check.h"
#include "compiler/syntax/program.h"

namespace vicinal::cli {

enum ExitCode {
  kOk = 0,
  kFailed = 1,
  kUsage = 2,
  kEnvironment = 3,
  kMismatch = 4,
  kLimit = 5,
  kInternal = 70,
  kInterrupted = 130
};
int exit_code(ErrorKind kind);

struct Globals {
  std::string color = "auto";
  bool quiet = false;
  int verbose = 0;
  std::map<std::string, std::string> settings;  // by the settings' names: cache_dir, cache, ...
  std::function<int()> action;                  // of the subcommand that was chosen
};

// Whether text on standard error is coloured: --color, NO_COLOR, CLICOLOR_FORCE, TERM, a terminal.
bool use_color(const Globals& globals);
// "error: ..." and its help on standard error; returns the exit code.
int fail(const Globals& globals, const Error& error);
// A line on standard error, unless --quiet.
void say(const Globals& globals, const std::string& line);

// SPEC or SPEC:NAME and what is bound in it, as options of a subcommand.
struct SpecOptions {
  std::string spec;
  std::vector<std::string> params, dynamic, import_paths;
};
void add_spec_options(CLI::App& app, SpecOptions& options, bool with_bindings = true);

// A program read from its file, with what loading found.
struct LoadedProgram {
  syntax::Program program;
  diagnostics::Sink sink;
  std::string block;
};
Result<LoadedProgram> load_program(const SpecOptions& options);
// "N=V" as values: true, false, integers, floats (inf too).
Result<std::map<std::string, ParamValue>> parse_params(const std::vector<std::string>& params);

// Prints diagnostics to standard error as text. Remarks only when asked for.
void print_diagnostics(const Globals& globals, const LoadedProgram& loaded, bool remarks);

// A checked block; prints what is wrong.
std::optional<Spec> load_spec(const Globals& globals, const SpecOptions& options, int& exit);
// What a subcommand does with it; prints the error. Returns the exit code.
int with_spec(const Globals& globals, const SpecOptions& options,
              const std::function<Result<int>(const Spec&)>& action);

// Finds out before any work is done whether write_output may and could write there: a file that is there
// already is kept unless forced.
Result<void> check_output(const std::string& path, bool force);
// Whole or not at all. No path and "-" are standard output.
Result<void> write_output(const std::string& path, std::string_view bytes);

// One function per subcommand, each in its own file: declares it and sets globals.action.
void add_check(CLI::App& app, Globals& globals);
void add_emit(CLI::App& app, Globals& globals);
void add_run(CLI::App& app, Globals& globals);
void add_explain(CLI::App& app, Globals& globals);
void add_bench(CLI::App& app, Globals& globals);
void add_tune(CLI::App& app, Globals& globals);
void add_merge(CLI::App& app, Globals& globals);
void add_cache(CLI::App& app, Globals& globals);
void add_doctor(CLI::App& app, Globals& globals);
void add_targets(CLI::App& app, Globals& globals);
void add_env(CLI::App& app, Globals& globals);

}  // namespace vicinal::cli
