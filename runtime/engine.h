// What one process shares: settings, the kernel cache, the opened libraries.
#pragma once

#include <memory>

#include "runtime/cache/kernel_cache.h"
#include "runtime/cpu/code_generator.h"
#include "runtime/cuda/nvrtc_compiler.h"
#include "runtime/settings.h"

namespace vicinal::runtime {

class Engine {
 public:
  // The process' own, made at first use from its environment.
  static Result<Engine*> process();
  // Options of a command line, which go before the environment. Before the first use of process().
  static void set_options(OptionValues options);
  // Where warnings about the cache go; default: nowhere.
  static void set_warning_sink(std::function<void(std::string_view)> sink);

  explicit Engine(Settings settings);

  const Settings& settings() const { return settings_; }
  cache::KernelCache& cache() { return cache_; }
  Result<cuda::NvrtcCompiler> nvrtc() const;
  Result<const cpu::CodeGeneratorApi*> code_generator() const;
  // That work on the host is spread over.
  unsigned threads() const;
  // The headers that emitted code includes: embedded, or from VICINAL_TEMPLATE_DIR, and their digest.
  Result<std::vector<cuda::HeaderText>> headers() const;
  Result<std::string> headers_digest() const;

 private:
  Settings settings_;
  cache::KernelCache cache_;
};

}  // namespace vicinal::runtime
