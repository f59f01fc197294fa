#include "cli/command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "compiler/diagnostics/render.h"
#include "compiler/driver/load.h"
#include "runtime/files/atomic_file.h"
#include "runtime/files/npy.h"
#include "runtime/kernel_impl.h"

namespace vicinal::cli {

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::spec: return kFailed;
    case ErrorKind::usage: return kUsage;
    case ErrorKind::environment: return kEnvironment;
    case ErrorKind::mismatch: return kMismatch;
    case ErrorKind::limit: return kLimit;
    case ErrorKind::internal: return kInternal;
  }
  return kInternal;
}

bool use_color(const Globals& globals) {
  if (globals.color != "auto") return globals.color == "always";
  const auto set = [](const char* name) {
    const char* value = std::getenv(name);
    return value != nullptr && *value != '\0';
  };
  const char* term = std::getenv("TERM");
  if (set("NO_COLOR")) return false;
  if (set("CLICOLOR_FORCE") && std::string_view(std::getenv("CLICOLOR_FORCE")) != "0") return true;
  return isatty(STDERR_FILENO) != 0 && term != nullptr && std::string_view(term) != "dumb";
}

int fail(const Globals& globals, const Error& error) {
  const bool color = use_color(globals);
  // Diagnostics of a spec come with their own headings.
  const bool worded = error.message.starts_with("error: ") || error.message.starts_with("warning: ");
  fmt::print(stderr, "{}{}\n", worded ? "" : color ? "\033[1;31merror\033[0m: " : "error: ", error.message);
  if (!error.help.empty()) fmt::print(stderr, "{}: {}\n", color ? "\033[1mhelp\033[0m" : "help", error.help);
  return exit_code(error.kind);
}

void say(const Globals& globals, const std::string& line) {
  if (!globals.quiet) fmt::print(stderr, "{}\n", line);
}

void add_spec_options(CLI::App& app, SpecOptions& options, bool with_bindings) {
  app.add_option("spec", options.spec,
                 "The spec: a file, FILE:NAME for one block of several, or - for standard input")
      ->required();
  app.add_option("--import-path", options.import_paths,
                 "A folder that imports may lead to, beside the spec's own");
  if (!with_bindings) return;
  app.add_option("--param", options.params, "NAME=VALUE: a param's value, baked into the kernel");
  app.add_option("--dynamic", options.dynamic, "NAME: a param that is passed at launch");
}

namespace {

// FILE:NAME, unless the whole is a file.
std::pair<std::string, std::string> split_block(const std::string& spec) {
  std::error_code ignored;
  const std::size_t colon = spec.rfind(':');
  if (colon == std::string::npos || std::filesystem::exists(spec, ignored)) return {spec, ""};
  return {spec.substr(0, colon), spec.substr(colon + 1)};
}

}  // namespace

Result<LoadedProgram> load_program(const SpecOptions& options) {
  LoadedProgram loaded;
  const auto [file, block] = split_block(options.spec);
  loaded.block = block;
  const std::vector<std::filesystem::path> import_paths(options.import_paths.begin(),
                                                        options.import_paths.end());
  VICINAL_TRY(loaded.program, driver::load_file(file, import_paths, loaded.sink));
  return loaded;
}

Result<std::map<std::string, ParamValue>> parse_params(const std::vector<std::string>& params) {
  std::map<std::string, ParamValue> result;
  for (const std::string& text : params) {
    const std::size_t equals = text.find('=');
    const auto malformed = [&] {
      return unexpected(ErrorKind::usage, fmt::format("`--param {}` is not NAME=VALUE", text),
                        "values are integers, floats, true and false: --param window=128");
    };
    if (equals == std::string::npos || equals == 0) return malformed();
    const std::string name = text.substr(0, equals), value = text.substr(equals + 1);
    const char *first = value.data(), *last = first + value.size();
    std::int64_t integer = 0;
    double real = 0;
    ParamValue parsed;
    if (value == "true" || value == "false")
      parsed = value == "true";
    else if (const auto i = std::from_chars(first, last, integer); i.ec == std::errc() && i.ptr == last)
      parsed = integer;
    else if (const auto r = std::from_chars(first, last, real); r.ec == std::errc() && r.ptr == last)
      parsed = real;
    else
      return malformed();
    if (!result.emplace(name, parsed).second)
      return unexpected(ErrorKind::usage, fmt::format("param `{}` is given twice", name));
  }
  return result;
}

void print_diagnostics(const Globals& globals, const LoadedProgram& loaded, bool remarks) {
  std::vector<diagnostics::Diagnostic> shown;
  for (diagnostics::Diagnostic& d : loaded.sink.sorted())
    if (d.level() == diagnostics::Level::error ||
        (d.level() == diagnostics::Level::warning && !globals.quiet) || remarks)
      shown.push_back(std::move(d));
  std::fputs(diagnostics::render_text(shown, loaded.program.sources, use_color(globals)).c_str(), stderr);
}

std::optional<Spec> load_spec(const Globals& globals, const SpecOptions& options, int& exit) {
  Result<LoadedProgram> loaded = load_program(options);
  if (!loaded) return exit = fail(globals, loaded.error()), std::nullopt;
  LoadedProgram shown{loaded->program, {}, {}};
  Result<Spec> spec = runtime::make_spec(std::move(loaded->program), loaded->block, loaded->sink);
  shown.sink = std::move(loaded->sink);
  print_diagnostics(globals, shown, false);
  if (spec) return *std::move(spec);
  exit = shown.sink.has_errors() ? kFailed : fail(globals, spec.error());
  return std::nullopt;
}

int with_spec(const Globals& globals, const SpecOptions& options,
              const std::function<Result<int>(const Spec&)>& action) {
  int exit = kOk;
  const std::optional<Spec> spec = load_spec(globals, options, exit);
  if (!spec) return exit;
  const Result<int> result = action(*spec);
  return result ? *result : fail(globals, result.error());
}

namespace {

// A device or a pipe: written as it is, never replaced.
bool is_special(const std::filesystem::path& path) {
  std::error_code ignored;
  const std::filesystem::file_status status = std::filesystem::status(path, ignored);
  return std::filesystem::exists(status) && !std::filesystem::is_regular_file(status) &&
         !std::filesystem::is_directory(status);
}

}  // namespace

Result<void> check_output(const std::string& path, bool force) {
  if (path.empty() || path == "-") return {};
  std::error_code ignored;
  if (!force && std::filesystem::is_regular_file(path, ignored))
    return unexpected(ErrorKind::usage, fmt::format("`{}` is there already", path),
                      "pass --force to overwrite it");
  return files::check_writable(path);
}

Result<void> write_output(const std::string& path, std::string_view bytes) {
  if (path.empty() || path == "-") {
    std::fwrite(bytes.data(), 1, bytes.size(), stdout);
    return {};
  }
  std::error_code ignored;
  const std::filesystem::path target = std::filesystem::weakly_canonical(path, ignored);
  if (is_special(target)) {
    std::ofstream out(target, std::ios::binary);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).flush();
    if (!out) return unexpected(ErrorKind::usage, fmt::format("cannot write `{}`", path));
    return {};
  }
  VICINAL_TRY(files::AtomicFile file, files::AtomicFile::create(target));
  VICINAL_TRY_VOID(file.append(bytes));
  return file.commit(/*durable=*/false);
}

}  // namespace vicinal::cli
