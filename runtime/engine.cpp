#include "runtime/engine.h"

#include <fmt/format.h>

#include <mutex>

#include "compiler/support/hash.h"
#include "compiler/support/text.h"
#include "runtime/host/parallel.h"
#include "templates/embed/bundle.h"

namespace vicinal::runtime {
namespace {

struct Process {
  std::mutex mutex;
  OptionValues options;
  std::function<void(std::string_view)> warn = [](std::string_view) {};
  std::unique_ptr<Engine> engine;
};

Process& the_process() {
  // The cache hashes what it still has to publish when the process ends. libcrypto cleans up at exit too, and
  // what is set up first goes last: so it is used before the cache exists.
  static const std::string first_use = support::sha256_hex("");
  static Process process;
  return process;
}

}  // namespace

Result<Engine*> Engine::process() {
  Process& process = the_process();
  const std::lock_guard lock(process.mutex);
  if (!process.engine) {
    VICINAL_TRY(Settings settings, read_settings(process_environment(), process.options));
    for (const std::string& warning : settings.warnings) process.warn(warning);
    process.engine = std::make_unique<Engine>(std::move(settings));
  }
  return process.engine.get();
}

void Engine::set_options(OptionValues options) {
  Process& process = the_process();
  const std::lock_guard lock(process.mutex);
  process.options = std::move(options);
}

void Engine::set_warning_sink(std::function<void(std::string_view)> sink) {
  Process& process = the_process();
  const std::lock_guard lock(process.mutex);
  process.warn = std::move(sink);
}

Engine::Engine(Settings settings)
    : settings_(std::move(settings)),
      cache_(cache_options(settings_, [](std::string_view warning) { the_process().warn(warning); })) {}

Result<const cpu::CodeGeneratorApi*> Engine::code_generator() const {
  return cpu::code_generator(settings_.cpu_llvm_path.value.value_or(std::filesystem::path()));
}

unsigned Engine::threads() const {
  return settings_.threads.value == 0 ? host::default_threads()
                                      : static_cast<unsigned>(settings_.threads.value);
}

Result<cuda::NvrtcCompiler> Engine::nvrtc() const {
  return cuda::NvrtcCompiler::open(settings_.nvrtc_path.value.value_or(std::filesystem::path()));
}

Result<std::vector<cuda::HeaderText>> Engine::headers() const {
  std::vector<cuda::HeaderText> headers;
  for (const templates::Header& header : templates::bundle()) {
    std::string text(header.text);
    if (const auto& folder = settings_.template_dir.value) {
      const auto path = *folder / header.name;
      auto live = support::read_file(path.string());
      if (!live)
        return unexpected(ErrorKind::usage, fmt::format("cannot read the template `{}`", path.string()),
                          "VICINAL_TEMPLATE_DIR names a folder like the project's templates/");
      text = *std::move(live);
    }
    headers.push_back({std::string(header.name), std::move(text)});
  }
  return headers;
}

Result<std::string> Engine::headers_digest() const {
  // The embedded bundle was hashed when it was built.
  if (!settings_.template_dir.value) return std::string(templates::bundle_hash());
  VICINAL_TRY(const std::vector<cuda::HeaderText> live, headers());
  std::string all;
  for (const cuda::HeaderText& h : live)
    all += fmt::format("{}:{}{}:{}", h.name.size(), h.name, h.text.size(), h.text);
  return support::sha256_hex(all);
}

}  // namespace vicinal::runtime
