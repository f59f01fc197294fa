// What `vicinal tune` keeps: written, read again, and taken only as far as it makes sense.
#include <doctest/doctest.h>

#include <fstream>

#include "compiler/emit/cuda/kernel_choice.h"
#include "runtime/kernel_impl.h"
#include "runtime/tuning.h"
#include "tests/unit/runtime/temporary_folder.h"

namespace vicinal::runtime {
namespace {

std::vector<emit::KernelOptions> candidates(std::vector<emit::HopperSchedule> schedules) {
  std::vector<emit::KernelOptions> result;
  for (const emit::HopperSchedule& schedule : schedules) {
    result.emplace_back().kind = emit::KernelKind::hopper;
    result.back().schedule = schedule;
  }
  return result;
}

std::vector<std::string> names(const std::vector<emit::KernelOptions>& options) {
  std::vector<std::string> result;
  for (const emit::KernelOptions& o : options) result.push_back(emit::print_schedule(o));
  return result;
}

}  // namespace

TEST_CASE("tuning: a record is read as it was written") {
  const test::TemporaryFolder folder;
  Settings settings;
  settings.state_dir.value = folder / "state";
  const OptionalPath of_device = tuning_folder(settings, "Some GPU 80GB/HBM3");
  REQUIRE(of_device);
  CHECK(of_device->filename() == "Some-GPU-80GB-HBM3");
  CHECK(of_device != tuning_folder(settings, "Another GPU"));
  const Spec spec = Spec::from_string("attention a { mask = k <= q }").value(),
             other = Spec::from_string("attention a { mask = k < q }").value();
  const auto named = [&](const Spec& s, DType dtype) {
    emit::KernelOptions options;
    options.dtype = dtype;
    return tuning_file(*of_device, s.impl().variant.specialized, options);
  };
  const OptionalPath file = named(spec, DType::bf16);
  CHECK(file == named(spec, DType::bf16));
  CHECK(file != named(other, DType::bf16));
  CHECK(file != named(spec, DType::f16));
  CHECK(!read_tuning(*file));

  const TuningRecord record{"batch 1", {{"a", 2.5, ""}, {"b", 0, "it \"spills\""}, {"c", 1.5, ""}}};
  REQUIRE(write_tuning(*file, record));
  const auto read = read_tuning(*file);
  REQUIRE(read);
  CHECK(read->problem == "batch 1");
  REQUIRE(read->rows.size() == 3);
  CHECK(read->find("b")->rejected == "it \"spills\"");
  CHECK(read->find("d") == nullptr);
  CHECK(read->best()->schedule == "c");
  CHECK(TuningRecord{}.best() == nullptr);
}

TEST_CASE("tuning: without a state folder there is no record, and a damaged one is none") {
  Settings settings;
  settings.state_dir.value.reset();
  CHECK(!tuning_folder(settings, "GPU"));
  const test::TemporaryFolder folder;
  for (const char* text : {"", "{", "[]", "{\"schema\": \"vicinal.tuning.v2\"}",
                           "{\"schema\": \"vicinal.tuning.v1\", \"problem\": 3, \"schedules\": []}",
                           "{\"schema\": \"vicinal.tuning.v1\", \"problem\": \"\", \"schedules\": [{}]}"}) {
    CAPTURE(text);
    std::ofstream(folder / "record.json") << text;
    CHECK(!read_tuning(folder / "record.json"));
  }
  std::ofstream(folder / "file") << "no folder";
  CHECK(!write_tuning(folder / "file" / "record.json", {}));
}

TEST_CASE("tuning: the best comes first, if there is such a candidate") {
  const auto all = candidates(
      {{.tile_q = 192, .tile_k = 80}, {.tile_q = 128, .tile_k = 128}, {.tile_q = 128, .tile_k = 96}});
  const std::vector<std::string> every = names(all);
  auto some = candidates({{.tile_q = 192, .tile_k = 80}, {.tile_q = 128, .tile_k = 128}});
  CHECK(prefer({"", {{every[0], 2, ""}, {every[1], 1, ""}}}, all, some));
  CHECK(names(some) == std::vector{every[1], every[0]});
  CHECK(prefer({"", {{every[2], 1, ""}, {every[0], 2, ""}}}, all, some));
  CHECK(names(some) == std::vector{every[2], every[1], every[0]});
  CHECK(!prefer({"", {{"of another version", 1, ""}}}, all, some));
  CHECK(names(some) == std::vector{every[2], every[1], every[0]});
  CHECK(!prefer({"", {{every[0], 0, "spills"}}}, all, some));
  CHECK(names(some) == std::vector{every[2], every[1], every[0]});
}

}  // namespace vicinal::runtime
