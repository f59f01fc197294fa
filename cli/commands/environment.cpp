// vicinal doctor, env, targets: what this machine has, which settings hold, which GPUs can be compiled for.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "compiler/emit/cuda/kernel_choice.h"
#include "runtime/cuda/device_info.h"
#include "runtime/cuda_kernel.h"

namespace vicinal::cli {
namespace {

using nlohmann::ordered_json;

struct Finding {
  std::string what;
  bool good;
  std::string detail, fix;
};

std::vector<Finding> examine(runtime::Engine& engine) {
  std::vector<Finding> found;
  const auto path = [](const runtime::OptionalPath& p) { return p.value_or(std::filesystem::path()); };
  const auto bad = [&](std::string what, const Error& e) {
    found.push_back({std::move(what), false, e.message, e.help});
  };

  const auto driver = cuda::driver(path(engine.settings().libcuda_path.value));
  if (!driver)
    bad("driver", driver.error());
  else
    found.push_back({"driver", true,
                     fmt::format("CUDA {}.{}, {}", (*driver)->version / 1000, (*driver)->version % 1000 / 10,
                                 (*driver)->path.string()),
                     ""});
  if (driver) {
    const auto devices = cuda::list_devices(**driver);
    if (!devices)
      bad("devices", devices.error());
    else if (devices->empty())
      found.push_back(
          {"devices", false, "the driver sees no GPU", "check nvidia-smi and CUDA_VISIBLE_DEVICES"});
    else
      for (const cuda::DeviceInfo& d : *devices)
        found.push_back(
            {"device", true,
             fmt::format("{}: {}, {}, {} multiprocessors, {} MiB", d.ordinal, d.name,
                         runtime::arch_name(d.capability()), d.multiprocessors, d.memory_bytes >> 20),
             ""});
  }
  const auto nvrtc = engine.nvrtc();
  if (!nvrtc)
    bad("nvrtc", nvrtc.error());
  else
    found.push_back({"nvrtc", true,
                     fmt::format("{}.{}, {}", nvrtc->major(), nvrtc->minor(), nvrtc->path().string()), ""});

  const cache::DiskCache* disk = engine.cache().disk();
  if (disk != nullptr)
    found.push_back({"cache", true, disk->root().string(), ""});
  else
    found.push_back({"cache", false, "kernels are kept in memory only",
                     "see the warning above, or set VICINAL_CACHE_DIR to a folder of your own"});
  const auto generator = engine.code_generator();
  if (!generator)
    bad("cpu", generator.error());
  else
    found.push_back(
        {"cpu", true, fmt::format("LLVM, {}, {} threads", (*generator)->host, engine.threads()), ""});
  return found;
}

int doctor(const Globals& globals, bool json) {
  const auto engine = runtime::Engine::process();
  if (!engine) return fail(globals, engine.error());
  const std::vector<Finding> found = examine(**engine);
  if (json) {
    ordered_json list = ordered_json::array();
    for (const Finding& f : found)
      list.push_back({{"what", f.what}, {"good", f.good}, {"detail", f.detail}, {"fix", f.fix}});
    fmt::print("{}\n", ordered_json{{"schema", "vicinal.doctor.v1"}, {"findings", list}}.dump(2));
    return kOk;
  }
  for (const Finding& f : found) {
    fmt::print("{:<4} {:<8} {}\n", f.good ? "ok" : "--", f.what, f.detail);
    if (!f.fix.empty()) fmt::print("              {}\n", f.fix);
  }
  return kOk;
}

int environment(const Globals& globals, bool json) {
  const auto engine = runtime::Engine::process();
  if (!engine) return fail(globals, engine.error());
  ordered_json list = ordered_json::array();
  for (const runtime::SettingRow& row : runtime::describe((*engine)->settings())) {
    if (json)
      list.push_back({{"name", row.name},
                      {"variable", row.variable},
                      {"value", row.value},
                      {"origin", runtime::name_of(row.origin)}});
    else
      fmt::print("{:<28} {:<12} {}\n", row.variable, runtime::name_of(row.origin), row.value);
  }
  if (json) fmt::print("{}\n", ordered_json{{"schema", "vicinal.env.v1"}, {"settings", list}}.dump(2));
  return kOk;
}

int targets(const Globals& globals, bool json) {
  const auto engine = runtime::Engine::process();
  if (!engine) return fail(globals, engine.error());
  const auto nvrtc = (*engine)->nvrtc();
  if (!nvrtc) return fail(globals, nvrtc.error());
  const auto archs = nvrtc->supported_archs();
  if (!archs) return fail(globals, archs.error());
  ordered_json list = ordered_json::array();
  for (int capability : *archs) {
    std::vector<std::string_view> kernels;
    for (const emit::KernelKind kind : emit::kKernelKinds)
      if (emit::runs_on(kind, capability)) kernels.push_back(emit::name_of(kind));
    if (json)
      list.push_back({{"arch", runtime::arch_name(capability)}, {"kernels", kernels}});
    else
      fmt::print("{:<8} {}\n", runtime::arch_name(capability), fmt::join(kernels, ", "));
  }
  if (json) fmt::print("{}\n", ordered_json{{"schema", "vicinal.targets.v1"}, {"targets", list}}.dump(2));
  return kOk;
}

using Function = int (*)(const Globals&, bool);

void add(CLI::App& app, Globals& globals, const char* name, const char* help, Function function) {
  auto* command = app.add_subcommand(name, help);
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "As JSON");
  command->callback([json, function, &globals] {
    globals.action = [json, function, &globals] { return function(globals, *json); };
  });
}

}  // namespace

void add_doctor(CLI::App& app, Globals& globals) {
  add(app, globals, "doctor", "What this machine has, and how to mend what is missing", doctor);
}
void add_env(CLI::App& app, Globals& globals) {
  add(app, globals, "env", "Every setting, its value and where it comes from", environment);
}
void add_targets(CLI::App& app, Globals& globals) {
  add(app, globals, "targets", "GPU architectures that this NVRTC compiles for", targets);
}

}  // namespace vicinal::cli
