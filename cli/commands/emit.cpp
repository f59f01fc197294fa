// vicinal emit KIND[,KIND] SPEC: any stage of a compilation, without a GPU.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "compiler/diagnostics/render.h"
#include "compiler/driver/compile.h"
#include "compiler/driver/gradient_text.h"
#include "compiler/emit/cuda/backward_source.h"
#include "compiler/emit/cuda/hopper_backward_source.h"
#include "compiler/emit/cuda/kernel_choice.h"
#include "compiler/ir/text.h"
#include "compiler/syntax/lexer.h"
#include "runtime/kernel_impl.h"

namespace vicinal::cli {
namespace {

struct Options {
  std::string kinds, output, arch = "sm_90a", dtype = "bf16", precision = "ieee", kernel = "portable",
                             cpu_target;
  SpecOptions spec;
  int head_dim = 128, value_dim = 0, tile_q = 64, tile_k = 64, schedule = 0;
  bool force = false;
};

class Emission {
 public:
  Emission(const Globals& globals, const Options& options) : globals_(globals), options_(options) {}

  int run() {
    if (const auto writable = check_output(options_.output, options_.force); !writable)
      return fail(globals_, writable.error());
    Result<LoadedProgram> loaded = load_program(options_.spec);
    if (!loaded) return fail(globals_, loaded.error());
    loaded_ = &*loaded;
    std::string output;
    for (const std::string& kind : CLI::detail::split(options_.kinds, ',')) {
      Result<std::string> text = emit(kind);
      if (!text) {
        if (loaded->sink.has_errors()) return print_diagnostics(globals_, *loaded, false), int{kFailed};
        return fail(globals_, text.error());
      }
      output += *text;
    }
    const Result<void> written = write_output(options_.output, output);
    return written ? int{kOk} : fail(globals_, written.error());
  }

 private:
  Result<std::string> emit(const std::string& kind) {
    const syntax::Program& program = loaded_->program;
    if (kind == "tokens") {
      diagnostics::Sink ignored;  // loading has reported them
      return syntax::dump(syntax::lex(program.sources, 0, ignored), program.sources);
    }
    if (kind == "ast") return ast::dump(program.files[0]);
    VICINAL_TRY_VOID(compile());
    if (kind == "ir") return ir::print(variant_->checked.module);
    if (kind == "ir-optimized") return ir::print(variant_->optimized);
    if (kind == "passes") return passes_;
    if (kind == "gradient") return driver::print_gradient(driver::differentiated(*variant_));
    if (kind == "gradient-ir") return ir::print(driver::differentiated(*variant_));
    if (kind.starts_with("ir-after=")) {
      const auto pass = after_.find(kind.substr(9));
      if (pass != after_.end()) return pass->second;
      std::string names;
      for (const passes::Pass& p : passes::pipeline())
        names += fmt::format("{}{}", names.empty() ? "" : ", ", p.name);
      return unexpected(ErrorKind::usage, fmt::format("there is no pass `{}`", kind.substr(9)),
                        "the passes are " + names);
    }
    if (kind == "cuda") {
      VICINAL_TRY(emit::KernelSource cuda, source());
      return std::move(cuda.text);
    }
    if (const auto text = code_text(kind)) return generated(*text);
    if (kind == "key") return key();
    if (kind == "ptx" || kind == "cubin") return binary(kind == "ptx");
    return unexpected(ErrorKind::usage, fmt::format("`{}` cannot be emitted", kind),
                      "the kinds are tokens, ast, ir, ir-after=PASS, ir-optimized, passes, gradient, "
                      "gradient-ir, cuda, ptx, "
                      "cubin, key, llvm, llvm-optimized and asm");
  }

  Result<void> compile() {
    if (variant_) return {};
    // Words come from the diagnostics; this only stops.
    const auto stop = [] { return unexpected(ErrorKind::spec, "the spec has errors"); };
    if (loaded_->sink.has_errors()) return stop();
    VICINAL_TRY(const ast::Attention* block, driver::find_block(loaded_->program, loaded_->block));
    const std::optional<driver::Variant> defaults =
        driver::compile_variant(loaded_->program, *block, {}, loaded_->sink);
    if (!defaults) return stop();
    VICINAL_TRY(const auto params, parse_params(options_.spec.params));
    VICINAL_TRY(const check::Bindings bindings,
                runtime::make_bindings(defaults->checked.module, params,
                                       {options_.spec.dynamic.begin(), options_.spec.dynamic.end()}));
    variant_ = driver::compile_variant(loaded_->program, *block, bindings, loaded_->sink,
                                       [&](const passes::PassReport& report, const ir::Module& module) {
                                         after_[std::string(report.name)] = ir::print(module);
                                         passes_ += fmt::format("{:<24} {:>5} -> {:<5} nodes {:8.3f} ms\n",
                                                                report.name, report.nodes_before,
                                                                report.nodes_after, report.milliseconds);
                                       });
    if (!variant_) return stop();
    for (const auto& [name, dim] :
         {std::pair("head dim", options_.head_dim), std::pair("value dim", options_.value_dim)})
      if (dim != 0 && (dim < 8 || dim > 256 || dim % 8 != 0))
        return unexpected(ErrorKind::spec,
                          fmt::format("{} is {}: it must be a multiple of 8 from 8 to 256", name, dim));
    return {};
  }

  emit::KernelOptions kernel_options() const {
    emit::KernelOptions kernel;
    for (const auto& row : kDTypes)
      if (row.name == options_.dtype) kernel.dtype = row.dtype;
    kernel.head_dim = options_.head_dim;
    kernel.value_dim = options_.value_dim == 0 ? options_.head_dim : options_.value_dim;
    kernel.tile_q = options_.tile_q;
    kernel.tile_k = options_.tile_k;
    for (const Precision precision : {Precision::ieee, Precision::tf32})
      if (name_of(precision) == options_.precision) kernel.precision = precision;
    return kernel;
  }

  Result<emit::KernelSource> source() const {
    const emit::KernelOptions kernel = kernel_options();
    for (const emit::BackwardStep step : emit::kBackwardSteps)
      if (options_.kernel == fmt::format("backward-{}", name_of(step))) return backward_source(kernel, step);
    for (const emit::HopperBackwardStep step : emit::kHopperBackwardSteps)
      if (options_.kernel == fmt::format("hopper-backward-{}", name_of(step)))
        return hopper_backward_source(kernel, step);
    if (const auto kind = emit::kernel_named(options_.kernel)) {
      const int any_capability = *kind == emit::KernelKind::hopper ? 90 : 80;
      const emit::Choice choice = emit::choose(*kind, variant_->specialized, kernel, any_capability, true);
      if (choice.candidates.empty())
        return unexpected(ErrorKind::usage, choice.why, "emit the portable kernel");
      const auto number = static_cast<std::size_t>(options_.schedule);
      if (number >= choice.candidates.size())
        return unexpected(ErrorKind::usage, fmt::format("the {} kernel has {} schedules for this",
                                                        options_.kernel, choice.candidates.size()));
      return emit::emit_cuda(variant_->specialized, choice.candidates[number]);
    }
    if (!emit::has_mask(variant_->specialized))
      return unexpected(ErrorKind::usage, "the variant has no mask, and a planner is made of one",
                        "its tiles follow from its extents and neighborhoods alone");
    return emit::emit_planner(variant_->specialized, kernel).rows;
  }

  Result<emit::KernelSource> backward_source(const emit::KernelOptions& kernel,
                                             emit::BackwardStep step) const {
    return emit::emit_backward(emit::specialize(driver::differentiated(*variant_)), kernel, step).kernel;
  }

  Result<emit::KernelSource> hopper_backward_source(const emit::KernelOptions& kernel,
                                                    emit::HopperBackwardStep step) const {
    const emit::Specialized variant = emit::specialize(driver::differentiated(*variant_));
    const emit::HopperBackwardChoice choice = emit::choose_hopper_backward(variant, kernel);
    if (!choice.schedule)
      return unexpected(ErrorKind::usage, "the Hopper kernel of the backward pass does not do: " + choice.why,
                        "emit a step of the portable backward pass");
    return emit::emit_hopper_backward(variant, kernel, *choice.schedule, step);
  }

  static std::optional<cpu::CodeText> code_text(const std::string& kind) {
    if (kind == "llvm") return cpu::CodeText::llvm;
    if (kind == "llvm-optimized") return cpu::CodeText::optimized_llvm;
    if (kind == "asm") return cpu::CodeText::assembly;
    return std::nullopt;
  }

  Result<std::string> generated(cpu::CodeText what) const {
    VICINAL_TRY(runtime::Engine* const engine, runtime::Engine::process());
    VICINAL_TRY(const cpu::CodeGeneratorApi* const generator, engine->code_generator());
    const emit::KernelOptions gpu = kernel_options();
    emit::CpuKernelOptions options;
    options.dtype = gpu.dtype;
    options.head_dim = gpu.head_dim;
    options.value_dim = gpu.value_dim;
    for (const ir::Input& input : variant_->checked.module.inputs)
      options.input_dtypes.push_back(emit::default_input_dtype(input.type));
    options.target = options_.cpu_target;
    std::string text, error;
    if (!generator->text(emit::cpu_kernel(variant_->specialized, options), what, text, error))
      return unexpected(options.target.empty() ? ErrorKind::internal : ErrorKind::usage,
                        "LLVM does not take the kernel: " + error);
    return text;
  }

  Result<std::string> key() const {
    VICINAL_TRY(runtime::Engine* const engine, runtime::Engine::process());
    VICINAL_TRY(const emit::KernelSource kernel, source());
    VICINAL_TRY(const cache::KernelKey key, runtime::kernel_key(*engine, kernel, options_.arch));
    nlohmann::ordered_json json = {{"schema", "vicinal.key.v1"}, {"digest", cache::digest(key)}};
    for (const auto& [name, value] : cache::fields(key)) json["fields"][name] = value;
    return json.dump(2) + "\n";
  }

  Result<std::string> binary(bool ptx) const {
    VICINAL_TRY(runtime::Engine* const engine, runtime::Engine::process());
    VICINAL_TRY(const emit::KernelSource kernel, source());
    if (!ptx) {
      VICINAL_TRY(const runtime::CompiledCubin cubin, runtime::compile_cubin(*engine, kernel, options_.arch));
      return cubin.kernel.payload->binary;
    }
    VICINAL_TRY(const cuda::NvrtcCompiler compiler, engine->nvrtc());
    cuda::CompileRequest request;
    request.source = kernel.text;
    request.entry = kernel.entry;
    request.arch = options_.arch;
    VICINAL_TRY(request.headers, engine->headers());
    request.ptx = true;
    VICINAL_TRY(cuda::Compiled compiled, compiler.compile(request));
    return std::move(compiled.ptx);
  }

  const Globals& globals_;
  const Options& options_;
  LoadedProgram* loaded_ = nullptr;
  std::optional<driver::Variant> variant_;
  std::map<std::string, std::string> after_;
  std::string passes_;
};

}  // namespace

void add_emit(CLI::App& app, Globals& globals) {
  auto* command = app.add_subcommand(
      "emit",
      "Write any stage: tokens, ast, ir, ir-after=PASS, ir-optimized, passes, gradient, gradient-ir, cuda, "
      "ptx, cubin, key, llvm, llvm-optimized, asm");
  auto options = std::make_shared<Options>();
  command->add_option("kinds", options->kinds, "One kind, or several with commas between")->required();
  add_spec_options(*command, options->spec);
  command->add_option("--arch", options->arch, "GPU architecture")->capture_default_str();
  command->add_option("--cpu-target", options->cpu_target,
                      "Processor of llvm and asm, such as x86-64-v3; default: this machine's");
  command->add_option("--dtype", options->dtype, "f32, f16 or bf16")
      ->check(CLI::IsMember({"f32", "f16", "bf16"}))
      ->capture_default_str();
  command->add_option("--head-dim", options->head_dim, "Channels of queries and keys")->capture_default_str();
  command->add_option("--value-dim", options->value_dim, "Channels of values; default: the head dim");
  command->add_option("--precision", options->precision, "Of products of f32: ieee or tf32")
      ->check(CLI::IsMember({"ieee", "tf32"}))
      ->capture_default_str();
  command
      ->add_option("--kernel", options->kernel,
                   "hopper, mma, portable, reference, the planner of tiles, or a step of backward")
      ->check(CLI::IsMember({"hopper", "mma", "portable", "reference", "planner", "backward-rows",
                             "backward-queries", "backward-keys", "backward-captured", "backward-sums",
                             "hopper-backward-rows", "hopper-backward-keys", "hopper-backward-queries"}))
      ->capture_default_str();
  command->add_option("--schedule", options->schedule, "Number of the kernel's schedule")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("-o,--output", options->output, "Write here instead of standard output");
  command->add_flag("--force", options->force, "Overwrite the output file");
  command->callback([options, &globals] {
    globals.action = [options, &globals] { return Emission(globals, *options).run(); };
  });
}

}  // namespace vicinal::cli
