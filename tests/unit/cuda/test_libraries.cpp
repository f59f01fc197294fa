#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "runtime/cuda/context.h"
#include "runtime/cuda/device_info.h"
#include "runtime/cuda/nvrtc_compiler.h"

namespace vicinal::cuda {

namespace {

bool mentions(const std::string& text, const char* word) {
  return text.find(word) != std::string::npos;
}

}  // namespace

TEST_CASE("cuda: a driver that is not there is named, with what was searched and what to install") {
  const auto missing = driver("/nowhere/libcuda.so.1");
  REQUIRE(!missing);
  CHECK(missing.error().kind == ErrorKind::environment);
  CHECK(mentions(missing.error().message, "the CUDA driver"));
  CHECK(mentions(missing.error().message, "/nowhere/libcuda.so.1"));
  CHECK(mentions(missing.error().help, "install"));
}

TEST_CASE("cuda: a file that is no library, and a library that is not the driver") {
  const auto path = std::filesystem::temp_directory_path() / "vicinal_not_a_library.so";
  std::ofstream(path) << "text";
  const auto text = driver(path);
  REQUIRE(!text);
  CHECK(mentions(text.error().message, "vicinal_not_a_library.so"));
  std::filesystem::remove(path);

  const auto other = driver("libc.so.6");
  REQUIRE(!other);
  CHECK(other.error().kind == ErrorKind::environment);
  CHECK(mentions(other.error().message, "has no cu"));
}

TEST_CASE("cuda: the search for NVRTC") {
  const auto missing = NvrtcCompiler::open("/nowhere/libnvrtc.so.13");
  REQUIRE(!missing);
  CHECK(missing.error().kind == ErrorKind::environment);
  CHECK(mentions(missing.error().message, "/nowhere/libnvrtc.so.13"));
  CHECK(mentions(missing.error().help, "install"));

  // A folder stands for the libraries in it, and nothing else is tried.
  const auto folder = nvrtc_candidates(std::filesystem::temp_directory_path());
  REQUIRE(folder.size() == 2);
  CHECK(mentions(folder[0], "libnvrtc.so.13"));
  CHECK(mentions(folder[1], "libnvrtc.so.12"));
  CHECK(nvrtc_candidates("/a/b.so") == std::vector<std::string>{"/a/b.so"});
  CHECK(nvrtc_candidates().front() == "libnvrtc.so.13");
}

TEST_CASE("cuda: the identity of a library is that of its bytes, not of its name or time") {
  const auto folder = std::filesystem::temp_directory_path();
  const auto write = [&](const char* name, const char* text) {
    std::ofstream(folder / name) << text;
    return folder / name;
  };
  const auto one = write("vicinal_identity_1", "alpha"), two = write("vicinal_identity_2", "alpha");
  const auto three = write("vicinal_identity_3", "beta");
  CHECK(*host::library_identity(one) == *host::library_identity(two));
  CHECK(*host::library_identity(one) != *host::library_identity(three));
  CHECK(!host::library_identity(folder / "vicinal_identity_missing"));
  for (const auto& path : {one, two, three}) std::filesystem::remove(path);
}

TEST_CASE("cuda: devices, where there are any") {
  const auto api = driver();
  if (!api) {
    MESSAGE("skipped: ", api.error().message);
    return;
  }
  const auto devices = list_devices(**api);
  REQUIRE(devices.has_value());
  for (const DeviceInfo& device : *devices) {
    CHECK(!device.name.empty());
    CHECK(device.capability() >= 50);
    CHECK(device.multiprocessors > 0);
    CHECK(device.shared_bytes_per_block >= 48 * 1024);
    CHECK(device.memory_bytes > 0);
  }
  const auto beyond = device_info(**api, 1000);
  REQUIRE(!beyond);
  CHECK(mentions(beyond.error().message, "cuDeviceGet("));
  CHECK(mentions(beyond.error().message, "1000"));
}

}  // namespace vicinal::cuda
