// vicinal tune SPEC: measures the ways to cut a kernel on this device, and keeps the fastest for every later
// compilation here.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/device_run.h"
#include "cli/launch_times.h"
#include "compiler/emit/cuda/kernel_choice.h"
#include "runtime/cuda/device_info.h"
#include "runtime/kernel_impl.h"
#include "runtime/tuning.h"

namespace vicinal::cli {
namespace {

struct Options {
  ProblemOptions problem;
  std::string kernel;
  int repeat = 21;
  bool again = false, json = false;
};

class Tune {
 public:
  explicit Tune(const Options& options) : options_(options) {}

  Result<int> run(const Globals& globals, const Spec& spec) {
    VICINAL_TRY(HostProblem problem, make_problem(spec, options_.problem));
    CompileOptions wanted = problem.compile_options();
    wanted.backend = Backend::cuda;
    wanted.kernel = options_.kernel;
    VICINAL_TRY(const Kernel kernel, compile(spec, wanted));
    const Kernel::Impl& impl = kernel.impl();
    VICINAL_TRY(const cuda::DeviceInfo device,
                cuda::device_info(impl.context().api(), impl.context().device()));
    const emit::KernelKind kind = impl.program->options.kind;
    const std::vector<emit::KernelOptions> all =
        emit::choose(kind, impl.variant.specialized, impl.program->options, device.capability(), true)
            .candidates;
    if (all.size() < 2)
      return unexpected(ErrorKind::spec, "there is nothing to choose: " + kernel.info().path_reason,
                        "the kernels for tensor cores can be cut in several ways");
    wanted.kernel = emit::name_of(kind);
    VICINAL_TRY_VOID(open_record(impl, device, all.front()));
    if (options_.again || record_.problem != problem.describe()) record_ = {problem.describe(), {}};

    HostTensor out = problem.like_rows(problem.dtype, problem.value_dim);
    for (std::size_t i = 0; i < all.size(); ++i) {
      const std::string schedule = emit::print_schedule(all[i]);
      if (record_.find(schedule) != nullptr) continue;  // by a run that was interrupted
      wanted.schedule = static_cast<int>(i);
      runtime::TuningRecord::Row row{schedule, 0, {}};
      VICINAL_TRY_VOID(measure(spec, wanted, problem, out, row));
      if (!options_.json) say(globals, line(row));
      record_.rows.push_back(std::move(row));
      VICINAL_TRY_VOID(runtime::write_tuning(file_, record_));
    }
    report(spec);
    return record_.best() != nullptr ? kOk : kFailed;
  }

 private:
  Result<void> open_record(const Kernel::Impl& impl, const cuda::DeviceInfo& device,
                           const emit::KernelOptions& first) {
    VICINAL_TRY(const runtime::Engine* const engine, runtime::Engine::process());
    const runtime::OptionalPath folder = runtime::tuning_folder(engine->settings(), device.name);
    if (!folder)
      return unexpected(ErrorKind::environment, "there is no folder to keep what is measured in",
                        "set VICINAL_STATE_DIR");
    file_ = runtime::tuning_file(*folder, impl.variant.specialized, first);
    if (auto record = runtime::read_tuning(file_)) record_ = *std::move(record);
    return {};
  }

  Result<void> measure(const Spec& spec, const CompileOptions& wanted, HostProblem& problem, HostTensor& out,
                       runtime::TuningRecord::Row& row) const {
    const Result<Kernel> kernel = compile(spec, wanted);
    if (!kernel) {
      // The assembler spills, or the tile does not fit: the others may do.
      if (kernel.error().kind != ErrorKind::limit) return kernel.forward_error();
      row.rejected = kernel.error().message;
      return {};
    }
    const cuda::Context& context = kernel->impl().context();
    const cuda::ContextScope scope(context);
    VICINAL_TRY(const DeviceProblem device, DeviceProblem::upload(*kernel, problem, out, nullptr));
    VICINAL_TRY(LaunchTimer timer, LaunchTimer::make(context));
    VICINAL_TRY(const Plan plan, kernel->prepare(device.arguments()));
    VICINAL_TRY(const std::vector<double> times,
                timer.times(options_.repeat, [&] { return kernel->run(device.arguments(), plan); }));
    row.milliseconds = spread(times).median;
    return {};
  }

  static std::string line(const runtime::TuningRecord::Row& row) {
    return row.rejected.empty() ? fmt::format("  {:>10.4g} ms  {}", row.milliseconds, row.schedule)
                                : fmt::format("  {:>13}  {}", "rejected", row.schedule);
  }

  void report(const Spec& spec) const {
    const runtime::TuningRecord::Row* best = record_.best();
    if (options_.json) {
      nlohmann::ordered_json json = {{"schema", "vicinal.tune.v1"},
                                     {"spec", spec.name()},
                                     {"problem", record_.problem},
                                     {"file", file_.string()},
                                     {"best", best == nullptr ? "" : best->schedule}};
      json["schedules"] = nlohmann::ordered_json::array();
      for (const runtime::TuningRecord::Row& row : record_.rows)
        json["schedules"].push_back(
            {{"schedule", row.schedule}, {"ms", row.milliseconds}, {"rejected", row.rejected}});
      fmt::print("{}\n", json.dump(2));
      return;
    }
    fmt::print("{}: {}\n", spec.name(), record_.problem);
    for (const runtime::TuningRecord::Row& row : record_.rows)
      fmt::print("{}{}\n", line(row), &row == best ? "  <- is taken from now on" : "");
    fmt::print("kept in {}\n", file_.string());
  }

  const Options& options_;
  std::filesystem::path file_;
  runtime::TuningRecord record_;
};

}  // namespace

void add_tune(CLI::App& app, Globals& globals) {
  auto* command =
      app.add_subcommand("tune", "Measure the ways to cut a kernel on this GPU, and keep the fastest");
  auto options = std::make_shared<Options>();
  add_problem_options(*command, options->problem);
  command->add_option("--kernel", options->kernel, "hopper or mma; default: the fastest")
      ->check(CLI::IsMember({"hopper", "mma"}));
  command->add_option("--repeat", options->repeat, "Timed launches of each")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  command->add_flag("--again", options->again, "Forget what was measured before");
  command->add_flag("--json", options->json, "As JSON");
  command->callback([options, &globals] {
    globals.action = [options, &globals] {
      return with_spec(globals, options->problem.spec,
                       [&](const Spec& spec) { return Tune(*options).run(globals, spec); });
    };
  });
}

}  // namespace vicinal::cli
