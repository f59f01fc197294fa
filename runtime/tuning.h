// Which way of cutting a kernel is the fastest on a device, as `vicinal tune` measured it. A record is a file
// in the state folder, one for a kernel and a device. It names schedules of the compiler's own table and
// nothing else: a damaged or foreign one does no harm, and is as good as none.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "compiler/emit/cuda/kernel_source.h"
#include "runtime/settings.h"

namespace vicinal::runtime {

struct TuningRecord {
  struct Row {
    std::string schedule;     // as emit::print_schedule writes it
    double milliseconds = 0;  // median of a launch; 0 where it was rejected
    std::string rejected;     // why
  };
  std::string problem;  // that was measured, in words
  std::vector<Row> rows;

  const Row* find(std::string_view schedule) const;
  // The fastest that ran; null where none did.
  const Row* best() const;
};

// Where records for devices of that name are; nothing where no state folder is known.
OptionalPath tuning_folder(const Settings& settings, std::string_view device);
// The record for a variant with these options, the first of its candidates. Emits it to learn its name.
std::filesystem::path tuning_file(const std::filesystem::path& folder, const emit::Specialized& variant,
                                  const emit::KernelOptions& first);

// Nothing where there is no record, or none that can be read.
std::optional<TuningRecord> read_tuning(const std::filesystem::path& file);
// Makes the folders above it. Errors (environment): it cannot be written.
Result<void> write_tuning(const std::filesystem::path& file, const TuningRecord& record);

// Puts the best of a record before the other candidates; `all` are those that the record may speak of. False:
// it speaks of none of them.
bool prefer(const TuningRecord& record, const std::vector<emit::KernelOptions>& all,
            std::vector<emit::KernelOptions>& candidates);

}  // namespace vicinal::runtime
