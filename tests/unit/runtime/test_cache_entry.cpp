#include <doctest/doctest.h>

#include "tests/unit/runtime/cache_fixture.h"

using namespace vicinal;
using namespace vicinal::cache;
using namespace vicinal::test;

namespace {

Miss defect_of(std::string_view file) {
  const auto decoded = decode_entry(file);
  const auto* defect = std::get_if<Defect>(&decoded);
  return defect == nullptr ? Miss::none : defect->reason;
}

// The file with another version, and a checksum that fits.
std::string with_version(std::string file, char version) {
  file[8] = version;
  file.resize(file.size() - 64);
  return file + support::sha256_hex(file);
}

}  // namespace

TEST_CASE("cache entry: all parts come back, empty ones and binary ones too") {
  for (const Payload& payload : {payload_of(1), Payload{}, Payload{std::string("\0\xff\n", 3), "", "n"}}) {
    const auto decoded = decode_entry(encode_entry("the record", payload));
    REQUIRE(std::holds_alternative<Entry>(decoded));
    CHECK(std::get<Entry>(decoded).record == "the record");
    CHECK(std::get<Entry>(decoded).payload == payload);
  }
}

TEST_CASE("cache entry: no flipped bit, no truncation and no addition goes unnoticed") {
  const std::string good = encoded(1, 200);
  REQUIRE(defect_of(good) == Miss::none);
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) CHECK(defect_of(flipped(good, i, 1 << bit)) == Miss::damaged);
  }
  for (std::size_t size = 0; size < good.size(); ++size)
    CHECK(defect_of(good.substr(0, size)) == Miss::damaged);
  CHECK(defect_of(good + '\0') == Miss::damaged);
  CHECK(defect_of(std::string(good.size(), '\0')) == Miss::damaged);
}

TEST_CASE("cache entry: an intact entry of another version is told apart from damage") {
  CHECK(defect_of(with_version(encoded(1), 2)) == Miss::other_format);
  CHECK(defect_of(with_version(encoded(1), 0)) == Miss::other_format);
}

TEST_CASE("cache entry: lengths that lie are noticed even under a checksum that fits") {
  for (const std::size_t field : {12u, 16u, 24u, 32u, 40u, 47u}) {
    for (const char value : {'\x00', '\x01', '\x7f', '\xff'}) {
      std::string bad = encoded(1, 200);
      if (bad[field] == value) continue;
      bad[field] = value;
      bad.resize(bad.size() - 64);
      CHECK(defect_of(bad + support::sha256_hex(bad)) == Miss::damaged);
    }
  }
}

TEST_CASE("cache: versions of the program share a folder") {
  const TemporaryFolder folder;
  const std::string name = digest(key_of(1));
  const std::string alien = with_version(encoded(1), 2);
  DiskCache disk = DiskCache::open(folder / "cache").value();
  REQUIRE(disk.publish(name, alien));
  REQUIRE(disk.publish(std::string(64, 'a'), alien));

  CacheOptions options;
  options.directory = folder / "cache";
  KernelCache cache(options);
  const auto kernel = cache.get_or_compile(key_of(1), compile_of(1));
  REQUIRE(kernel);
  CHECK(kernel->outcome.miss == Miss::other_format);
  CHECK(*kernel->payload == payload_of(1));
  cache.flush();
  // Ours to use neither, and neither ours to replace or remove.
  CHECK(read_text(disk.entry_path(name)) == alien);
  CHECK(read_text(disk.entry_path(std::string(64, 'a'))) == alien);
}
