// vicinal cache: looks after the kernels on disk.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "runtime/cache/archive.h"
#include "runtime/cache/maintenance.h"
#include "runtime/engine.h"

namespace vicinal::cli {
namespace {

using nlohmann::ordered_json;

struct Options {
  bool json = false, trust = false, keep = false;
  std::string digest, archive;
};

void print(const ordered_json& json) {
  fmt::print("{}\n", json.dump(2));
}

double age_hours(const cache::EntryInfo& e) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::ratio<3600>>(now - e.last_use).count();
}

int list(const Globals&, const Options& options, const cache::DiskCache& disk) {
  ordered_json json = {{"schema", "vicinal.cache.ls.v1"}, {"entries", ordered_json::array()}};
  for (const cache::EntryInfo& e : cache::list(disk)) {
    if (options.json)
      json["entries"].push_back(
          {{"digest", e.digest}, {"bytes", e.bytes}, {"hours_since_use", age_hours(e)}});
    else
      fmt::print("{}  {:>9} bytes  used {:.1f} h ago\n", e.digest.substr(0, 16), e.bytes, age_hours(e));
  }
  if (options.json) print(json);
  return kOk;
}

int info(const Globals& globals, const Options& options, const cache::DiskCache& disk) {
  const auto details = cache::inspect(disk, options.digest);
  if (!details) return fail(globals, details.error());
  ordered_json json = {{"schema", "vicinal.cache.info.v1"},
                       {"digest", details->info.digest},
                       {"bytes", details->info.bytes},
                       {"notes", details->payload.notes},
                       {"log", details->payload.log}};
  for (const auto& [name, value] : cache::fields(details->key)) json["key"][name] = value;
  if (options.json)
    print(json);
  else
    for (const auto& [name, value] : cache::fields(details->key)) fmt::print("--- {}\n{}\n", name, value);
  return kOk;
}

int verify(const Globals&, const Options& options, const cache::DiskCache& disk) {
  const cache::VerifyReport report = cache::verify(disk, !options.keep);
  ordered_json damaged = ordered_json::array();
  for (const auto& d : report.damaged) {
    damaged.push_back({{"digest", d.digest}, {"detail", d.detail}, {"removed", d.removed}});
    if (!options.json)
      fmt::print("damaged {}: {}{}\n", d.digest.substr(0, 16), d.detail, d.removed ? " (removed)" : "");
  }
  if (options.json)
    print({{"schema", "vicinal.cache.verify.v1"},
           {"intact", report.intact},
           {"other_format", report.other_format},
           {"damaged", damaged}});
  else
    fmt::print("{} intact, {} damaged, {} of other versions\n", report.intact, report.damaged.size(),
               report.other_format);
  return report.damaged.empty() ? kOk : kMismatch;
}

int prune(const Globals& globals, const Options& options, const cache::DiskCache& disk) {
  const auto engine = runtime::Engine::process();
  if (!engine) return fail(globals, engine.error());
  const runtime::Settings& s = (*engine)->settings();
  const auto report =
      cache::prune(disk, {s.cache_max_bytes.value,
                          std::chrono::hours(24 * static_cast<std::int64_t>(s.cache_max_age_days.value))});
  if (!report) return fail(globals, report.error());
  if (options.json)
    print({{"schema", "vicinal.cache.prune.v1"},
           {"evicted", report->evicted},
           {"leftovers", report->leftovers},
           {"bytes_before", report->bytes_before},
           {"bytes_after", report->bytes_after}});
  else
    fmt::print("{} evicted, {} leftovers, {} -> {} bytes\n", report->evicted, report->leftovers,
               report->bytes_before, report->bytes_after);
  return kOk;
}

int clear(const Globals&, const Options& options, const cache::DiskCache& disk) {
  const std::size_t removed = cache::clear(disk);
  if (options.json)
    print({{"schema", "vicinal.cache.clear.v1"}, {"removed", removed}});
  else
    fmt::print("{} removed\n", removed);
  return kOk;
}

int path(const Globals&, const Options&, const cache::DiskCache& disk) {
  fmt::print("{}\n", disk.root().string());
  return kOk;
}

int archive_report(const Globals& globals, const Options& options,
                   const Result<cache::ArchiveReport>& report) {
  if (!report) return fail(globals, report.error());
  if (options.json)
    print(
        {{"schema", "vicinal.cache.archive.v1"}, {"entries", report->entries}, {"skipped", report->skipped}});
  else
    fmt::print("{} entries, {} skipped\n", report->entries, report->skipped);
  return kOk;
}

int export_to(const Globals& globals, const Options& options, const cache::DiskCache& disk) {
  return archive_report(globals, options, cache::export_archive(disk, options.archive));
}
int import_from(const Globals& globals, const Options& options, const cache::DiskCache& disk) {
  return archive_report(globals, options, cache::import_archive(disk, options.archive, options.trust));
}

using Function = int (*)(const Globals&, const Options&, const cache::DiskCache&);

}  // namespace

void add_cache(CLI::App& app, Globals& globals) {
  auto* command = app.add_subcommand("cache", "Look after the kernel cache on disk");
  command->require_subcommand(1);
  auto options = std::make_shared<Options>();
  const auto add = [&](const char* name, const char* help, Function function) {
    auto* verb = command->add_subcommand(name, help);
    verb->add_flag("--json", options->json, "As JSON");
    verb->callback([options, function, &globals] {
      globals.action = [options, function, &globals] {
        const auto engine = runtime::Engine::process();
        if (!engine) return fail(globals, engine.error());
        const cache::DiskCache* disk = (*engine)->cache().disk();
        if (disk == nullptr)
          return fail(globals, Error(ErrorKind::environment, "there is no cache on disk",
                                     "see `vicinal env` and `vicinal doctor`"));
        return function(globals, *options, *disk);
      };
    });
    return verb;
  };
  add("ls", "Entries, sizes and ages", list);
  add("info", "What one entry's key is made of", info)
      ->add_option("digest", options->digest, "The first digits of its digest")
      ->required();
  add("verify", "Hash every entry again; damaged ones are removed", verify)
      ->add_flag("--keep", options->keep, "Only report");
  add("prune", "Evict what is over the size and age limits", prune);
  add("clear", "Remove everything", clear);
  add("path", "Where it is", path);
  add("export", "Write all entries to one file", export_to)
      ->add_option("archive", options->archive, "The file")
      ->required();
  auto* import = add("import", "Take entries from a file that `export` wrote", import_from);
  import->add_option("archive", options->archive, "The file")->required();
  import->add_flag("--trust", options->trust, "Its machine code may run here");
}

}  // namespace vicinal::cli
