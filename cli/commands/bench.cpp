// vicinal bench SPEC: what compiling costs, cold and cached, and what running costs.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include <nlohmann/json.hpp>

#include "cli/device_run.h"
#include "cli/fma_peak.h"
#include "cli/launch_times.h"
#include "compiler/emit/cuda/kernel_choice.h"
#include "runtime/cpu/interpreter.h"
#include "runtime/host/parallel.h"
#include "runtime/kernel_impl.h"

namespace vicinal::cli {
namespace {

using nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct Options {
  ProblemOptions problem;
  std::string backend = "auto", arch = "sm_90a", kernel, pass = "forward";
  bool nondeterministic = false;
  int repeat = 20, compile_repeat = 5, schedule = -1;
  bool json = false, launch = false;
};

template <class F>
Result<double> milliseconds(F f) {
  const auto start = Clock::now();
  VICINAL_TRY_VOID(f());
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options) {}

  Result<int> run(const Spec& spec) {
    VICINAL_TRY(HostProblem problem, make_problem(spec, options_.problem));
    CompileOptions compile_options = problem.compile_options();
    compile_options.kernel = options_.kernel;
    compile_options.schedule = options_.schedule;
    compile_options.gradients = options_.pass == "backward";
    compile_options.deterministic = !options_.nondeterministic;
    for (Backend b : {Backend::automatic, Backend::interpreter, Backend::cpu, Backend::cuda})
      if (name_of(b) == options_.backend) compile_options.backend = b;
    VICINAL_TRY(const Kernel kernel, compile(spec, compile_options));
    HostTensor out = problem.like_rows(problem.dtype, problem.value_dim);
    // Before any work is done: what the spec does not allow is found here.
    VICINAL_TRY(const runtime::Problem bound, kernel.impl().bind(problem.arguments(&out, nullptr)));
    json_ = {{"schema", "vicinal.bench.v1"},
             {"spec", spec.name()},
             {"problem", problem.describe()},
             {"path", kernel.info().path}};
    print("{}: {}\n", spec.name(), problem.describe());
    VICINAL_TRY_VOID(compile_times(kernel));
    VICINAL_TRY_VOID(options_.pass == "backward" ? backward_times(kernel, problem, bound, out)
                                                 : run_times(kernel, problem, bound, out));
    if (options_.json) fmt::print("{}\n", json_.dump(2));
    return int{kOk};
  }

 private:
  template <class... Args>
  void print(const char* format, const Args&... arguments) const {
    if (!options_.json) fmt::print(fmt::runtime(format), arguments...);
  }

  void row(const std::string& name, const Spread& s, const char* unit = "ms") {
    json_[name] = {{"median", s.median},
                   {"quartile_low", s.low},
                   {"quartile_high", s.high},
                   {"count", s.count},
                   {"unit", unit}};
    print("  {:<22} {:>10.4g} {}  [{:.4g}, {:.4g}], {} times\n", name, s.median, unit, s.low, s.high,
          s.count);
  }

  // Of the kernel that runs here, or that would on a device of the architecture that was named.
  Result<emit::KernelOptions> compiled_options(const Kernel& kernel) const {
    const Kernel::Impl& impl = kernel.impl();
    if (impl.on_device()) return impl.program->options;
    emit::KernelOptions options;
    options.head_dim = static_cast<int>(impl.options.head_dim);
    options.value_dim = static_cast<int>(impl.options.value_dim);
    if (impl.options.dtype != DType::f64) options.dtype = impl.options.dtype;
    options.precision = impl.options.precision;
    const emit::Specialized& variant = impl.variant.specialized;
    VICINAL_TRY(const int capability, runtime::capability_of(options_.arch));
    const auto kind = emit::kernel_named(options_.kernel);
    emit::Choice choice = kind ? emit::choose(*kind, variant, options, capability)
                               : emit::choose_fastest(variant, options, capability);
    if (choice.candidates.empty())
      return unexpected(ErrorKind::spec, choice.why, "leave the kernel to be chosen");
    return choice.candidates.front();
  }

  // The front end, a cold NVRTC compile, and hits in memory and on disk, each through a cache of its own.
  Result<void> compile_times(const Kernel& kernel) {
    const Spec::Impl& spec = *kernel.impl().spec;
    std::vector<double> front, emit, cold, memory, disk;
    for (int i = 0; i < options_.compile_repeat; ++i) {
      diagnostics::Sink sink;
      VICINAL_TRY(const double ms, milliseconds([&]() -> Result<void> {
                    driver::compile_variant(spec.program, spec.attention(), {}, sink);
                    return {};
                  }));
      front.push_back(ms);
    }
    row("front_end", spread(front));
    if (kernel.info().path == "cpu/jit") VICINAL_TRY_VOID(code_times(kernel));
    if (options_.backend == "cpu") return {};
    VICINAL_TRY(const emit::KernelOptions kernel_options, compiled_options(kernel));
    emit::KernelSource source;
    for (int i = 0; i < options_.compile_repeat; ++i) {
      VICINAL_TRY(const double ms, milliseconds([&]() -> Result<void> {
                    source = emit::emit_cuda(kernel.impl().variant.specialized, kernel_options);
                    return {};
                  }));
      emit.push_back(ms);
    }
    row("emit", spread(emit));

    VICINAL_TRY(runtime::Engine* const process, runtime::Engine::process());
    if (const auto nvrtc = process->nvrtc(); !nvrtc) {
      print("  nvrtc: {}\n", nvrtc.error().message);
      json_["nvrtc_missing"] = nvrtc.error().message;
      return {};
    }
    const std::string arch = kernel.impl().on_device() ? kernel.info().arch : options_.arch;
    const auto compiled = [&](runtime::Engine& engine, std::vector<double>& times) -> Result<cache::Source> {
      VICINAL_TRY(const runtime::CompiledCubin cubin, runtime::compile_cubin(engine, source, arch));
      times.push_back(cubin.milliseconds);
      return cubin.kernel.outcome.source;
    };
    runtime::Settings settings = process->settings();
    settings.cache_mode.value = cache::CacheMode::off;
    runtime::Engine uncached(settings);
    for (int i = 0; i < options_.compile_repeat; ++i) VICINAL_TRY_VOID(compiled(uncached, cold));
    row("nvrtc_cold_" + arch, spread(cold));

    settings.cache_mode.value = cache::CacheMode::on;
    std::vector<double> ignored;
    {
      runtime::Engine writer(settings);
      VICINAL_TRY_VOID(compiled(writer, ignored));
      for (int i = 0; i < 200; ++i) VICINAL_TRY_VOID(compiled(writer, memory));
      row("memory_hit", spread(memory));
      writer.cache().flush();
    }
    for (int i = 0; i < options_.compile_repeat; ++i) {
      runtime::Engine reader(settings);
      VICINAL_TRY(const cache::Source from, compiled(reader, disk));
      if (from != cache::Source::disk) {
        print("  disk_hit: there is no cache on disk\n");
        return {};
      }
    }
    row("disk_hit", spread(disk));
    return {};
  }

  // Code for the CPU, generated anew each time: as LLVM's IR, and all of it to a function that can be called.
  Result<void> code_times(const Kernel& kernel) {
    VICINAL_TRY(runtime::Engine* const engine, runtime::Engine::process());
    VICINAL_TRY(const cpu::CodeGeneratorApi* const generator, engine->code_generator());
    std::vector<double> build, compile;
    for (int i = 0; i < options_.compile_repeat; ++i) {
      cpu::Code code;
      std::string error;
      if (!generator->compile(kernel.impl().executor->compiled().kernel(), code, error))
        return unexpected(ErrorKind::internal, "LLVM does not compile the kernel: " + error);
      build.push_back(code.build_ms);
      compile.push_back(code.compile_ms);
      generator->release(code.owner);
    }
    row("llvm_build", spread(build));
    row("llvm_compile", spread(compile));
    return {};
  }

  Result<void> run_times(const Kernel& kernel, HostProblem& problem, const runtime::Problem& bound,
                         HostTensor& out) {
    const double pairs = kept_pairs(kernel, bound);
    const double flops = 2.0 * pairs * static_cast<double>(problem.head_dim + problem.value_dim);
    std::vector<double> times;
    if (kernel.info().backend == Backend::cuda) {
      VICINAL_TRY_VOID(host_plan(kernel, bound));
      VICINAL_TRY(times, cuda_times(kernel, problem, out));
    } else {
      const RunArguments arguments = problem.arguments(&out, nullptr);
      VICINAL_TRY(const Plan plan, timed_plan(kernel, arguments));
      const bool planned = kernel.info().backend == Backend::cpu;
      const auto run = [&] { return planned ? kernel.run(arguments, plan) : kernel.run(arguments); };
      if (kernel.info().path == "cpu/jit") {
        VICINAL_TRY(times, jit_times(kernel, run, flops));
      } else {
        VICINAL_TRY(times.emplace_back(), milliseconds(run));
      }
    }
    const Spread s = spread(times);
    row("forward", s);
    json_["path"] = kernel.info().path;
    json_["path_reason"] = kernel.info().path_reason;
    print("  {:<22} {}\n", kernel.info().path, kernel.info().path_reason);
    json_["kept_pairs"] = pairs;
    json_["tflops"] = flops / s.median * 1e-9;
    print("  {:<22} {:>10.4g} TFLOP/s over {:.4g} kept pairs\n", "rate", flops / s.median * 1e-9, pairs);
    return {};
  }

  // Of Q, K and V, from the out and lse of a run.
  Result<void> backward_times(const Kernel& kernel, HostProblem& problem, const runtime::Problem& bound,
                              HostTensor& out) {
    const bool softmax = kernel.impl().variant.checked.module.normalize == ir::Normalize::softmax;
    HostTensor lse = problem.like_rows(DType::f32, 0),
               d_out = problem.like_rows(problem.dtype, problem.value_dim),
               d_q = make_tensor(problem.dtype, problem.q.view.shape),
               d_k = make_tensor(problem.dtype, problem.k.view.shape),
               d_v = make_tensor(problem.dtype, problem.v.view.shape);
    const RunArguments arguments = problem.arguments(&out, softmax ? &lse : nullptr);
    const bool device = kernel.info().backend == Backend::cuda;
    if (!device) VICINAL_TRY_VOID(kernel.run(arguments));
    // As good as random for what is timed.
    const auto& numbers = device ? problem.q.bytes : out.bytes;
    std::copy_n(numbers.begin(), std::min(numbers.size(), d_out.bytes.size()), d_out.bytes.begin());
    const OutputDifferentials given{.out = d_out.view};
    const Differentials wanted{.q = d_q.view, .k = d_k.view, .v = d_v.view};
    const auto run = [&] { return kernel.backward(arguments, given, wanted); };
    VICINAL_TRY(const Support support, kernel.supports(arguments));
    const double pairs = kept_pairs(kernel, bound);
    const double flops = 5.0 * pairs * static_cast<double>(problem.head_dim + problem.value_dim);
    std::vector<double> times;
    if (device) {
      VICINAL_TRY(times, cuda_backward_times(kernel, problem, out, lse, given, wanted,
                                             support.gradient_workspace_bytes));
    } else {
      VICINAL_TRY(const double first, milliseconds(run));
      row("backward_first", spread({first}));
      times = {first};
    }
    if (support.gradient_path == "cpu/jit") {
      VICINAL_TRY(times, jit_times(kernel, run, flops));
    }
    const Spread s = spread(times);
    row("backward", s);
    json_["gradient_path"] = support.gradient_path;
    json_["gradient_reason"] = support.gradient_reason;
    print("  {:<22} {}\n", support.gradient_path, support.gradient_reason);
    json_["kept_pairs"] = pairs;
    json_["tflops"] = flops / s.median * 1e-9;
    print("  {:<22} {:>10.4g} TFLOP/s over {:.4g} kept pairs, 2.5 times the forward pass' operations\n",
          "rate", flops / s.median * 1e-9, pairs);
    return {};
  }

  // Of generated code, after a first run to warm up. Beside the times stands what part of the processor's
  // peak they come to, which says more on a machine that others use too.
  template <class Run>
  Result<std::vector<double>> jit_times(const Kernel& kernel, const Run& run, double flops) {
    VICINAL_TRY(runtime::Engine* const engine, runtime::Engine::process());
    VICINAL_TRY(const cpu::CodeGeneratorApi* const generator, engine->code_generator());
    VICINAL_TRY_VOID(run());
    VICINAL_TRY(FmaPeak peak, FmaPeak::measure(*generator, engine->threads()));
    VICINAL_TRY(const FmaPeak::Times times, peak.times(options_.repeat, run));
    std::vector<double> undisturbed, of_own_bursts, waited;
    for (std::size_t i = 0; i < times.milliseconds.size(); ++i) {
      const double rate = flops / times.milliseconds[i] * 1e3;
      of_own_bursts.push_back(100 * rate / times.peak[i]);
      waited.push_back(100 * times.waited[i]);
      if (times.undisturbed[i]) undisturbed.push_back(100 * rate / peak.best());
    }
    json_["threads"] = engine->threads();
    json_["fma_peak_gflops"] = peak.best() * 1e-9;
    print("  {:<22} {:>10.4g} GFLOP/s in bursts on {} threads, {}\n", "fma_peak", peak.best() * 1e-9,
          engine->threads(), kernel.info().path_reason);
    row("of_bursts_around", spread(of_own_bursts), "%");
    row("waited_for_processor", spread(waited), "%");
    if (undisturbed.empty())
      print("  {:<22} no repetition was left in peace\n", "of_fma_peak");
    else
      row("of_fma_peak", spread(undisturbed), "%");
    return times.milliseconds;
  }

  // prepare(): from tensors to a plan that a launch can take. On a device that plans by itself this is what
  // the host spends; the device's time has a row of its own.
  Result<Plan> timed_plan(const Kernel& kernel, const RunArguments& arguments) {
    std::vector<double> times;
    std::optional<Plan> plan;
    constexpr int kTimes = 5;
    for (int i = 0; i < kTimes; ++i) {
      VICINAL_TRY(const double ms, milliseconds([&]() -> Result<void> {
                    VICINAL_TRY(plan, kernel.prepare(arguments));
                    return {};
                  }));
      times.push_back(ms);
    }
    row("plan", spread(times));
    return *std::move(plan);
  }

  // The list from tensors in host memory, to compare with the device's.
  Result<void> host_plan(const Kernel& kernel, const runtime::Problem& bound) {
    VICINAL_TRY(const runtime::Program* const program, kernel.impl().program_for(bound));
    const plan::TileShape shape = kernel.impl().tile_shape(program, bound);
    std::vector<double> times;
    for (int i = 0; i < options_.repeat; ++i) {
      VICINAL_TRY(const double ms, milliseconds([&] {
                    return plan::plan_tiles(kernel.impl().masks(), bound, shape,
                                            {.threads = host::default_threads()});
                  }));
      times.push_back(ms);
    }
    row("plan_host", spread(times));
    return {};
  }

  // Events around the planner's launches; of variants with a mask.
  Result<void> device_plan(const Kernel& kernel, const RunArguments& arguments, LaunchTimer& timer) {
    const Kernel::Impl& impl = kernel.impl();
    if (!emit::has_mask(impl.variant.specialized)) return {};
    const cuda::Context& context = impl.context();
    VICINAL_TRY(runtime::Engine* const engine, runtime::Engine::process());
    VICINAL_TRY(const runtime::DevicePlanner planner,
                runtime::DevicePlanner::make(*engine, context, impl.variant.specialized,
                                             impl.program->options, impl.info.arch));
    VICINAL_TRY(const runtime::Problem problem, impl.bind(arguments));
    VICINAL_TRY(const runtime::Program* const program, impl.program_for(problem));
    const plan::TileShape shape = program->shape(problem);
    VICINAL_TRY(const runtime::PlannerLayout layout, planner.layout(problem, shape));
    VICINAL_TRY(const cuda::DeviceBuffer memory, cuda::DeviceBuffer::allocate(context.api(), layout.bytes));
    const cuda::TileWords words = runtime::planned_words(layout, memory.address(), problem, shape);
    VICINAL_TRY(const std::vector<double> times, timer.times(options_.repeat, [&] {
      return planner.enqueue(problem, layout, memory.address(), words, nullptr);
    }));
    row("plan_device", spread(times));
    return {};
  }

  // Over all heads; estimated from a sample of rows where there are many.
  static double kept_pairs(const Kernel& kernel, const runtime::Problem& p) {
    if (p.rows() == 0) return 0;
    const cpu::Interpreter interpreter(kernel.impl().variant.checked.module, p);
    const std::int64_t sample = std::min<std::int64_t>(
        p.rows(), std::max<std::int64_t>(16, (1 << 22) / std::max<std::int64_t>(1, p.local_keys())));
    std::vector<double> kept(static_cast<std::size_t>(sample));
    host::parallel_for(sample, host::default_threads(), [&](std::int64_t i) {
      const std::int64_t n = (2 * i + 1) * p.rows() / (2 * sample), queries = p.local_queries();
      const std::vector<bool> row =
          interpreter.kept({n / queries / p.heads, n / queries % p.heads, n % queries});
      kept[static_cast<std::size_t>(i)] =
          static_cast<double>(std::count(row.begin(), row.end(), true) + p.context);
    });
    double sum = 0;
    for (double k : kept) sum += k;
    return sum / static_cast<double>(sample) * static_cast<double>(p.rows());
  }

  Result<std::vector<double>> cuda_times(const Kernel& kernel, HostProblem& problem, HostTensor& out) {
    const cuda::Context& context = kernel.impl().context();
    const cuda::ContextScope scope(context);
    VICINAL_TRY(LaunchTimer timer, LaunchTimer::make(context));
    VICINAL_TRY(const std::size_t before, cuda::free_bytes(context.api()));
    VICINAL_TRY(const DeviceProblem device, DeviceProblem::upload(kernel, problem, out, nullptr));
    VICINAL_TRY_VOID(device_plan(kernel, device.arguments(), timer));
    VICINAL_TRY(const Plan plan, timed_plan(kernel, device.arguments()));
    for (const bool in_graph : {false, true}) {
      if (!options_.launch) continue;
      VICINAL_TRY(const std::vector<double> times,
                  timer.in_a_row(kRowRepeat, in_graph, [&](cuda::StreamHandle stream) {
                    return kernel.run(device.arguments(), plan, stream);
                  }));
      row(in_graph ? "launch_in_graph" : "launch_in_row", spread(times));
    }
    VICINAL_TRY(std::vector<double> times,
                timer.times(options_.repeat, [&] { return kernel.run(device.arguments(), plan); }));
    VICINAL_TRY_VOID(memory(context.api(), before, device.bytes(), "plan", plan.bytes()));
    return times;
  }

  // All that is taken of the device's memory while launches are timed, in the driver's pieces, and what it is
  // for. What other processes took or gave back meanwhile is in it.
  Result<void> memory(const cuda::DriverApi& api, std::size_t free_before, std::size_t tensors,
                      const char* what, std::size_t bytes) {
    VICINAL_TRY(const std::size_t free, cuda::free_bytes(api));
    const std::int64_t taken = static_cast<std::int64_t>(free_before) - static_cast<std::int64_t>(free);
    json_["memory"] = {{"taken", taken}, {"tensors", tensors}, {what, bytes}};
    const auto mib = [](auto x) { return static_cast<double>(x) / (1 << 20); };
    print("  {:<22} {:>10.4g} MiB taken of the device, for tensors of {:.4g} MiB and a {} of {:.4g} MiB\n",
          "memory", mib(taken), mib(tensors), what, mib(bytes));
    return {};
  }

  // Everything that a call enqueues, clearing memory and the rows' terms included.
  Result<std::vector<double>> cuda_backward_times(const Kernel& kernel, HostProblem& problem, HostTensor& out,
                                                  HostTensor& lse, const OutputDifferentials& given,
                                                  const Differentials& wanted, std::size_t workspace) {
    const cuda::Context& context = kernel.impl().context();
    const cuda::ContextScope scope(context);
    const bool softmax = kernel.impl().variant.checked.module.normalize == ir::Normalize::softmax;
    VICINAL_TRY(LaunchTimer timer, LaunchTimer::make(context));
    VICINAL_TRY(const std::size_t before, cuda::free_bytes(context.api()));
    VICINAL_TRY(DeviceProblem device, DeviceProblem::upload(kernel, problem, out, softmax ? &lse : nullptr));
    VICINAL_TRY_VOID(kernel.prepare(device.arguments()));
    VICINAL_TRY_VOID(kernel.run(device.arguments()));
    std::vector<double> times;
    const auto timed = [&](const std::function<Result<void>()>& launch) -> Result<void> {
      VICINAL_TRY(times, timer.times(options_.repeat, launch));
      return memory(context.api(), before, device.bytes(), "workspace", workspace);
    };
    VICINAL_TRY_VOID(device.backward(kernel, given, wanted, timed));
    return times;
  }

  // Rows are of hundreds of launches each, and only asked for where those are short.
  static constexpr int kRowRepeat = 9;

  const Options& options_;
  ordered_json json_;
};

}  // namespace

void add_bench(CLI::App& app, Globals& globals) {
  auto* command = app.add_subcommand("bench", "Time compiling (cold, cached) and running");
  auto options = std::make_shared<Options>();
  add_problem_options(*command, options->problem);
  command->add_option("--backend", options->backend, "auto, interpreter, cpu or cuda")
      ->check(CLI::IsMember({"auto", "interpreter", "cpu", "cuda"}))
      ->capture_default_str();
  command->add_option("--arch", options->arch, "Architecture to compile for where there is no GPU")
      ->capture_default_str();
  command->add_option("--kernel", options->kernel, "hopper, mma, portable or reference; default: the fastest")
      ->check(CLI::IsMember({"hopper", "mma", "portable", "reference"}));
  command->add_option("--schedule", options->schedule, "Number of the Hopper kernel's schedule");
  command->add_option("--repeat", options->repeat, "Timed launches")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  command->add_option("--compile-repeat", options->compile_repeat, "Timed compiles")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--pass", options->pass, "forward, or backward: the gradients of Q, K and V")
      ->check(CLI::IsMember({"forward", "backward"}))
      ->capture_default_str();
  command->add_flag("--nondeterministic", options->nondeterministic,
                    "Gradients may differ in their last bits from run to run");
  command->add_flag("--launch", options->launch,
                    "Also launches in a row, and in a graph: of small problems, on a GPU");
  command->add_flag("--json", options->json, "As JSON");
  command->callback([options, &globals] {
    globals.action = [options, &globals] {
      return with_spec(globals, options->problem.spec,
                       [&](const Spec& spec) { return Bench(*options).run(spec); });
    };
  });
}

}  // namespace vicinal::cli
