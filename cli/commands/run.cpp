// vicinal run SPEC: compiles a variant and runs it, on a GPU where there is one and on the CPU where there is
// none.
#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include <nlohmann/json.hpp>

#include "cli/accuracy.h"
#include "cli/device_run.h"
#include "cli/gradients.h"
#include "compiler/emit/cuda/backward_source.h"
#include "runtime/files/npy.h"
#include "runtime/host/elements.h"
#include "runtime/host/parallel.h"
#include "runtime/kernel_impl.h"

namespace vicinal::cli {
namespace {

using nlohmann::ordered_json;

struct Options {
  ProblemOptions problem;
  GradientOptions gradients;
  std::string backend = "auto", tile, kernel, out, lse, scores;
  bool check = false, json = false;
  int device = 0;
};

// More than this many score evaluations are checked on a sample of rows.
constexpr std::int64_t kCheckedPairs = 1 << 24;
constexpr std::int64_t kMaxScores = std::int64_t{1} << 28;

Result<void> parse_tile(const std::string& text, CompileOptions& options) {
  if (text.empty()) return {};
  char tail = 0;
  if (std::sscanf(text.c_str(), "%d,%d%c", &options.tile_q, &options.tile_k, &tail) == 2 &&
      options.tile_q > 0 && options.tile_k > 0)
    return {};
  return unexpected(ErrorKind::usage, fmt::format("`--tile {}` is not Q,K", text),
                    "write it like --tile 64,64");
}

class Runner {
 public:
  Runner(const Globals& globals, const Options& options) : globals_(globals), options_(options) {}

  int run() {
    return with_spec(globals_, options_.problem.spec, [&](const Spec& spec) { return run(spec); });
  }

 private:
  Result<int> run(const Spec& spec) {
    // Found before any work is done.
    for (const std::string& path : {options_.out, options_.lse, options_.scores})
      if (!path.empty()) VICINAL_TRY_VOID(files::check_writable(path));
    VICINAL_TRY_VOID(check_gradient_options(spec, options_.gradients));
    VICINAL_TRY(HostProblem problem, make_problem(spec, options_.problem));
    problem_ = &problem;
    CompileOptions compile_options = problem.compile_options();
    for (Backend b : {Backend::automatic, Backend::interpreter, Backend::cpu, Backend::cuda})
      if (name_of(b) == options_.backend) compile_options.backend = b;
    compile_options.kernel = options_.kernel;
    compile_options.device = options_.device;
    compile_options.gradients = options_.gradients.wanted();
    compile_options.deterministic = !options_.gradients.nondeterministic;
    VICINAL_TRY_VOID(parse_tile(options_.tile, compile_options));
    VICINAL_TRY(const Kernel kernel, compile(spec, compile_options));
    kernel_ = &kernel;
    softmax_ = kernel.impl().variant.checked.module.normalize == ir::Normalize::softmax;
    if (!options_.lse.empty() && !softmax_)
      return unexpected(ErrorKind::spec, "the variant has no lse", "leave --lse out");

    HostTensor out = problem.like_rows(problem.dtype, problem.value_dim),
               lse = problem.like_rows(DType::f32, 0);
    HostTensor* const wanted_lse = softmax_ ? &lse : nullptr;
    VICINAL_TRY(const double milliseconds, compute(out, wanted_lse));
    VICINAL_TRY(const runtime::Problem bound, kernel.impl().bind(problem.arguments(&out, wanted_lse)));

    std::optional<Comparison> comparison;
    const cpu::Interpreter oracle(kernel.impl().variant.checked.module, bound);
    if (options_.check || problem.is_default) {
      const std::int64_t pairs = std::max<std::int64_t>(1, bound.local_keys() + bound.context);
      comparison =
          compare(oracle, bound, std::max<std::int64_t>(64, kCheckedPairs / pairs), options_.problem.seed);
    }
    if (!options_.out.empty()) VICINAL_TRY_VOID(write_tensor(options_.out, out, problem.layout, true));
    if (!options_.lse.empty()) VICINAL_TRY_VOID(write_tensor(options_.lse, lse, problem.layout, false));
    if (!options_.scores.empty()) VICINAL_TRY_VOID(write_scores(oracle, bound));
    if (options_.gradients.wanted()) {
      VICINAL_TRY(gradient_ms_, differentiate(spec, compile_options));
    }
    if (options_.json)
      report_json(spec, milliseconds, comparison);
    else
      report(spec, milliseconds, comparison);
    return comparison && !comparison->pass() ? kMismatch : kOk;
  }

  Result<double> compute(HostTensor& out, HostTensor* lse) {
    const auto since = [](std::chrono::steady_clock::time_point start) {
      return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    };
    if (kernel_->info().backend != Backend::cuda) {
      const auto start = std::chrono::steady_clock::now();
      VICINAL_TRY_VOID(kernel_->run(problem_->arguments(&out, lse)));
      return since(start);
    }
    const cuda::Context& context = kernel_->impl().context();
    const cuda::ContextScope scope(context);
    VICINAL_TRY(const DeviceProblem device, DeviceProblem::upload(*kernel_, *problem_, out, lse));
    VICINAL_TRY(cuda::Event begin, cuda::Event::create(context.api()));
    VICINAL_TRY(cuda::Event end, cuda::Event::create(context.api()));
    VICINAL_TRY(const Plan plan, kernel_->prepare(device.arguments()));
    VICINAL_TRY_VOID(begin.record(nullptr));
    VICINAL_TRY_VOID(kernel_->run(device.arguments(), plan));
    VICINAL_TRY_VOID(end.record(nullptr));
    VICINAL_TRY_VOID(device.download(out, lse));
    VICINAL_TRY(const float milliseconds, end.milliseconds_since(begin));
    return static_cast<double>(milliseconds);
  }

  // On the device that ran, where its kernels can compute them, and by the interpreter elsewhere.
  Result<double> differentiate(const Spec& spec, CompileOptions options) {
    if (kernel_->impl().gradients) {
      gradient_path_ = kernel_->info().gradient_path;
      return write_gradients(
          spec, *problem_, options_.gradients, problem_->dtype,
          [&](const OutputDifferentials& given, const Differentials& wanted) -> Result<double> {
            const cuda::ContextScope scope(kernel_->impl().context());
            HostTensor out = problem_->like_rows(problem_->dtype, problem_->value_dim),
                       lse = problem_->like_rows(DType::f32, 0);
            VICINAL_TRY(DeviceProblem device,
                        DeviceProblem::upload(*kernel_, *problem_, out, softmax_ ? &lse : nullptr));
            VICINAL_TRY_VOID(kernel_->run(device.arguments()));
            return device.backward(*kernel_, given, wanted);
          });
    }
    // Gradients of 16-bit tensors too are written as f32.
    if (kernel_->info().path != "cpu/jit") options.backend = Backend::interpreter;
    VICINAL_TRY(const Kernel kernel, compile(spec, options));
    if (kernel.impl().host_gradients()) gradient_path_ = "cpu/jit";
    return write_gradients(
        spec, *problem_, options_.gradients, DType::f32,
        [&](const OutputDifferentials& given, const Differentials& wanted) -> Result<double> {
          const auto start = std::chrono::steady_clock::now();
          VICINAL_TRY_VOID(kernel.backward(problem_->arguments(nullptr, nullptr), given, wanted));
          const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
          return time.count();
        });
  }

  // [batch, heads, tokens, keys + context], -inf where a key is not kept.
  Result<void> write_scores(const cpu::Interpreter& oracle, const runtime::Problem& p) const {
    const std::int64_t queries = p.local_queries(), keys = p.local_keys() + p.context;
    if (p.rows() * std::max<std::int64_t>(keys, 1) > kMaxScores)
      return unexpected(ErrorKind::limit, "too many scores to write", "--scores is for small problems");
    files::Array array;
    array.dtype = DType::f32;
    array.shape = {p.batch, p.heads, queries, keys};
    array.bytes.resize(static_cast<std::size_t>(p.rows() * keys) * 4);
    host::parallel_for(p.rows(), host::default_threads(), [&](std::int64_t n) {
      const std::vector<double> row =
          oracle.scores({n / queries / p.heads, n / queries % p.heads, n % queries});
      for (std::size_t j = 0; j < row.size(); ++j)
        host::store_element(array.bytes.data(), DType::f32, n * keys + static_cast<std::int64_t>(j), row[j]);
    });
    return files::write_npy(options_.scores, array);
  }

  void report(const Spec& spec, double milliseconds, const std::optional<Comparison>& comparison) const {
    const CompileInfo& info = kernel_->info();
    fmt::print("{}: {}\n", spec.name(), problem_->describe());
    for (const std::string& note : problem_->notes) fmt::print("  {}\n", note);
    if (info.backend == Backend::cuda)
      fmt::print(
          "ran on {} for {} in {:.3f} ms; kernel {} in {:.1f} ms ({} registers, {} bytes of shared memory)\n",
          info.path, info.arch, milliseconds, info.origin == "compiled" ? "compiled" : "from " + info.origin,
          info.compile_ms, info.registers, info.shared_bytes);
    else
      fmt::print("ran on {} in {:.1f} ms{}{}\n", info.path == "cpu/jit" ? "the CPU" : "the interpreter",
                 milliseconds,
                 info.path == "cpu/jit" ? fmt::format("; kernel compiled in {:.1f} ms", info.compile_ms)
                 : info.backend == Backend::cpu ? "; no compiler for the CPU: " + beginning(info.path_reason)
                                                : "",
                 info.miss_reason.empty() ? "" : "; no GPU: " + beginning(info.miss_reason));
    if (gradient_ms_)
      fmt::print("gradients by {} in {:.3g} ms\n",
                 gradient_path_ == "interpreter" ? "the interpreter" : gradient_path_, *gradient_ms_);
    if (!comparison) return;
    if (info.path == "interpreter") fmt::print("(the same interpreter: only rounding differs)\n");
    fmt::print("checked {} of {} rows against the interpreter in double precision\n", comparison->compared,
               comparison->total);
    fmt::print("        {:>12} {:>12} {:>12} {:>12}\n", "max error", "mean error", "plain max", "2 ulp");
    for (const ErrorRow& r : comparison->rows) {
      fmt::print("  {:<5} {:>12.3g} {:>12.3g} {:>12.3g} {:>12.3g}  {}\n", r.what, r.max, r.mean, r.plain_max,
                 r.allowance, r.pass ? "pass" : "FAIL");
      if (!r.pass) fmt::print("        worst at {}\n", r.worst);
    }
  }

  // Of a message, what comes before its details.
  static std::string beginning(const std::string& message) {
    return message.substr(0, message.find_first_of(";:\n"));
  }

  // JSON has no infinity; a string says it.
  static ordered_json number(double x) {
    return std::isfinite(x) ? ordered_json(x) : ordered_json(fmt::format("{}", x));
  }

  void report_json(const Spec& spec, double milliseconds, const std::optional<Comparison>& comparison) const {
    const CompileInfo& info = kernel_->info();
    ordered_json json = {{"schema", "vicinal.run.v1"},
                         {"spec", spec.name()},
                         {"problem", problem_->describe()},
                         {"notes", problem_->notes},
                         {"backend", name_of(info.backend)},
                         {"path", info.path},
                         {"path_reason", info.path_reason},
                         {"milliseconds", milliseconds},
                         {"kernel",
                          {{"origin", info.origin},
                           {"miss", info.miss_reason},
                           {"key", info.key},
                           {"arch", info.arch},
                           {"front_end_ms", info.front_end_ms},
                           {"compile_ms", info.compile_ms},
                           {"registers", info.registers},
                           {"local_bytes", info.local_bytes},
                           {"shared_bytes", info.shared_bytes}}}};
    if (gradient_ms_) json["gradients"] = {{"path", gradient_path_}, {"milliseconds", *gradient_ms_}};
    if (comparison) {
      ordered_json errors = ordered_json::array();
      for (const ErrorRow& r : comparison->rows)
        errors.push_back({{"what", r.what},
                          {"max", number(r.max)},
                          {"mean", number(r.mean)},
                          {"plain_max", number(r.plain_max)},
                          {"plain_mean", number(r.plain_mean)},
                          {"two_ulp", number(r.allowance)},
                          {"pass", r.pass}});
      json["check"] = {{"rows", comparison->compared},
                       {"of", comparison->total},
                       {"pass", comparison->pass()},
                       {"errors", errors}};
    }
    fmt::print("{}\n", json.dump(2));
  }

  const Globals& globals_;
  const Options& options_;
  HostProblem* problem_ = nullptr;
  const Kernel* kernel_ = nullptr;
  bool softmax_ = true;
  std::optional<double> gradient_ms_;
  std::string gradient_path_ = "interpreter";
};

}  // namespace

void add_run(CLI::App& app, Globals& globals) {
  auto* command = app.add_subcommand(
      "run", "Compile a spec and run it; with nothing else, on a default problem that is checked");
  auto options = std::make_shared<Options>();
  add_problem_options(*command, options->problem);
  command->add_option("--backend", options->backend, "auto, interpreter, cpu or cuda")
      ->check(CLI::IsMember({"auto", "interpreter", "cpu", "cuda"}))
      ->capture_default_str();
  command->add_option("--tile", options->tile, "Q,K: the tile of the portable kernel, 16, 32 or 64 each");
  command->add_option("--kernel", options->kernel, "hopper, mma, portable or reference; default: the fastest")
      ->check(CLI::IsMember({"hopper", "mma", "portable", "reference"}));
  command->add_option("--device", options->device, "Which GPU")->capture_default_str();
  command->add_option("--out", options->out, "Write the output here, f32 .npy");
  command->add_option("--lse", options->lse, "Write the log-sum-exp here, f32 .npy");
  command->add_option("--scores", options->scores,
                      "Write every score here (the interpreter's), f32 .npy, -inf where a key is not kept");
  add_gradient_options(*command, options->gradients);
  command->add_flag("--check", options->check, "Compare with the interpreter; a mismatch exits with 4");
  command->add_flag("--json", options->json, "The report as JSON");
  command->callback([options, &globals] {
    globals.action = [options, &globals] { return Runner(globals, *options).run(); };
  });
}

}  // namespace vicinal::cli
