#include "runtime/tuning.h"

#include <algorithm>
#include <cctype>

#include <nlohmann/json.hpp>

#include "compiler/emit/cuda/kernel_choice.h"
#include "runtime/files/atomic_file.h"

namespace vicinal::runtime {
namespace {

constexpr std::string_view kSchema = "vicinal.tuning.v1";
constexpr std::size_t kMostBytes = 1 << 20;

// "NVIDIA H100 80GB HBM3" as the name of a folder.
std::string folder_name(std::string_view device) {
  std::string name(device);
  for (char& c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '-';
  return name;
}

}  // namespace

const TuningRecord::Row* TuningRecord::find(std::string_view schedule) const {
  const auto row = std::ranges::find(rows, schedule, &Row::schedule);
  return row == rows.end() ? nullptr : &*row;
}

const TuningRecord::Row* TuningRecord::best() const {
  const Row* best = nullptr;
  for (const Row& row : rows)
    if (row.milliseconds > 0 && (best == nullptr || row.milliseconds < best->milliseconds)) best = &row;
  return best;
}

OptionalPath tuning_folder(const Settings& settings, std::string_view device) {
  if (!settings.state_dir.value) return std::nullopt;
  return *settings.state_dir.value / "tuning" / folder_name(device);
}

std::filesystem::path tuning_file(const std::filesystem::path& folder, const emit::Specialized& variant,
                                  const emit::KernelOptions& first) {
  return folder / (emit::emit_cuda(variant, first).entry + ".json");
}

std::optional<TuningRecord> read_tuning(const std::filesystem::path& file) {
  const Result<std::optional<std::string>> text = files::read_whole_file(file, kMostBytes);
  if (!text || !*text) return std::nullopt;
  try {
    const nlohmann::json json = nlohmann::json::parse(**text);
    if (json.at("schema") != kSchema) return std::nullopt;
    TuningRecord record{json.at("problem"), {}};
    for (const nlohmann::json& row : json.at("schedules"))
      record.rows.push_back({row.at("schedule"), row.at("ms"), row.at("rejected")});
    return record;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
}

Result<void> write_tuning(const std::filesystem::path& file, const TuningRecord& record) {
  nlohmann::ordered_json json = {{"schema", kSchema}, {"problem", record.problem}};
  json["schedules"] = nlohmann::ordered_json::array();
  for (const TuningRecord::Row& row : record.rows)
    json["schedules"].push_back(
        {{"schedule", row.schedule}, {"ms", row.milliseconds}, {"rejected", row.rejected}});
  std::error_code error;
  std::filesystem::create_directories(file.parent_path(), error);
  if (error) return files::system_error("make folder", file.parent_path(), error.value());
  VICINAL_TRY(files::AtomicFile out, files::AtomicFile::create(file));
  VICINAL_TRY_VOID(out.append(json.dump(2) + "\n"));
  return out.commit(false);
}

bool prefer(const TuningRecord& record, const std::vector<emit::KernelOptions>& all,
            std::vector<emit::KernelOptions>& candidates) {
  const TuningRecord::Row* best = record.best();
  if (best == nullptr) return false;
  const auto is_best = [&](const emit::KernelOptions& o) {
    return emit::print_schedule(o) == best->schedule;
  };
  const auto found = std::ranges::find_if(all, is_best);
  if (found == all.end()) return false;
  std::erase_if(candidates, is_best);
  candidates.insert(candidates.begin(), *found);
  return true;
}

}  // namespace vicinal::runtime
