// vicinal check SPEC...: errors, warnings and, when asked, what the compiler understood.
#include <fmt/format.h>

#include "cli/command.h"
#include "compiler/diagnostics/render.h"
#include "compiler/driver/compile.h"
#include "runtime/kernel_impl.h"

namespace vicinal::cli {
namespace {

struct Options {
  std::vector<std::string> specs, params, dynamic, import_paths;
  bool json = false, explain = false;
};

// Every block of a file, or the one that is named.
int check_file(const Globals& globals, const Options& options, const std::string& spec, std::string& json) {
  SpecOptions one{spec, options.params, options.dynamic, options.import_paths};
  Result<LoadedProgram> loaded = load_program(one);
  if (!loaded) return fail(globals, loaded.error());
  const Result<std::map<std::string, ParamValue>> params = parse_params(options.params);
  if (!params) return fail(globals, params.error());

  std::vector<const ast::Attention*> blocks;
  if (!loaded->block.empty()) {
    Result<const ast::Attention*> block = driver::find_block(loaded->program, loaded->block);
    if (!block) return fail(globals, block.error());
    blocks = {*block};
  } else {
    for (const ast::Attention& block : loaded->program.files[0].attentions) blocks.push_back(&block);
  }
  check::check_functions(loaded->program, loaded->sink);
  for (const ast::Attention* block : blocks) {
    std::optional<driver::Variant> variant =
        driver::compile_variant(loaded->program, *block, {}, loaded->sink);
    if (!variant || (params->empty() && options.dynamic.empty())) continue;
    Result<check::Bindings> bindings = runtime::make_bindings(
        variant->checked.module, *params, {options.dynamic.begin(), options.dynamic.end()});
    if (!bindings) return fail(globals, bindings.error());
    driver::compile_variant(loaded->program, *block, *bindings, loaded->sink);
  }
  const auto found = loaded->sink.sorted();
  if (options.json)
    json = diagnostics::render_json(found, loaded->program.sources);
  else
    print_diagnostics(globals, *loaded, options.explain);
  if (loaded->sink.has_errors()) return kFailed;
  if (!options.json && !globals.quiet)
    fmt::print("{}: {} attention block{}, no errors\n", spec, blocks.size(), blocks.size() == 1 ? "" : "s");
  return kOk;
}

}  // namespace

void add_check(CLI::App& app, Globals& globals) {
  auto* command = app.add_subcommand("check", "Check specs: errors, warnings, remarks");
  auto options = std::make_shared<Options>();
  command->add_option("specs", options->specs, "Files, FILE:NAME, or -")->required();
  command->add_option("--import-path", options->import_paths, "A folder that imports may lead to");
  command->add_option("--param", options->params, "NAME=VALUE");
  command->add_option("--dynamic", options->dynamic, "NAME of a param that is passed at launch");
  command->add_flag("--json", options->json,
                    "Diagnostics as JSON on standard output, a document for each spec");
  command->add_flag("--explain", options->explain, "Also what the compiler understood");
  command->callback([options, &globals] {
    globals.action = [options, &globals] {
      int exit = kOk;
      for (const std::string& spec : options->specs) {
        std::string json;
        exit = std::max(exit, check_file(globals, *options, spec, json));
        if (!json.empty()) fmt::print("{}\n", json);
      }
      return exit;
    };
  });
}

}  // namespace vicinal::cli
