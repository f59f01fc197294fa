#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include "runtime/files/npy.h"
#include "tests/unit/runtime/temporary_folder.h"

using namespace vicinal;
using namespace vicinal::files;
using vicinal::test::read_text;
using vicinal::test::TemporaryFolder;
using vicinal::test::write_text;

namespace {

std::string npy(std::string_view dict, std::string_view data, int major = 1) {
  std::string file("\x93NUMPY", 6);
  file += static_cast<char>(major);
  file += '\0';
  const std::size_t length = dict.size() + 1;
  for (int i = 0; i < (major == 1 ? 2 : 4); ++i) file += static_cast<char>(length >> (8 * i));
  return file + std::string(dict) + "\n" + std::string(data);
}

std::string header(std::string_view descr, std::string_view shape) {
  return fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}", descr, shape);
}

Result<Array> parse(std::string_view file) {
  std::vector<std::byte> bytes(file.size());
  if (!file.empty()) std::memcpy(bytes.data(), file.data(), file.size());
  return parse_npy(std::move(bytes), "x.npy");
}

// The message of the error that parsing must give; each must name the file.
std::string error_of(std::string_view file) {
  const auto array = parse(file);
  REQUIRE_FALSE(array);
  CHECK(array.error().kind == ErrorKind::usage);
  CHECK(array.error().message.find("`x.npy`") != std::string::npos);
  CHECK_FALSE(array.error().help.empty());
  return array.error().message;
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != text.npos;
}

Array array_of(DType dtype, std::vector<std::int64_t> shape) {
  std::size_t size = size_of(dtype);
  for (const auto extent : shape) size *= static_cast<std::size_t>(extent);
  Array array{dtype, std::move(shape), std::vector<std::byte>(size)};
  for (std::size_t i = 0; i < size; ++i) array.bytes[i] = static_cast<std::byte>(i * 7 + 1);
  return array;
}

}  // namespace

TEST_CASE("npy: every type and shape comes back as it was written") {
  const TemporaryFolder folder;
  const std::vector<std::vector<std::int64_t>> shapes = {
      {}, {1}, {5}, {0}, {2, 3}, {3, 0, 2}, {2, 1, 3, 1, 2}};
  for (const auto& row : kDTypes) {
    for (const auto& shape : shapes) {
      CAPTURE(row.name);
      const Array written = array_of(row.dtype, shape);
      REQUIRE(write_npy(folder / "a.npy", written));
      const auto read = read_npy(folder / "a.npy");
      REQUIRE(read);
      CHECK(read->dtype == written.dtype);
      CHECK(read->shape == written.shape);
      CHECK(read->bytes == written.bytes);
      CHECK((read_text(folder / "a.npy").size() - written.bytes.size()) % 64 == 0);
    }
  }
  CHECK(test::count_files(folder.path()) == 1);
}

TEST_CASE("npy: the header is the one NumPy writes") {
  const TemporaryFolder folder;
  REQUIRE(write_npy(folder / "a.npy", array_of(DType::f32, {2, 3})));
  CHECK(contains(read_text(folder / "a.npy"),
                 "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   "));
  REQUIRE(write_npy(folder / "a.npy", array_of(DType::bf16, {4})));
  CHECK(
      contains(read_text(folder / "a.npy"), "{'descr': '<V2', 'fortran_order': False, 'shape': (4,), }   "));
  REQUIRE(write_npy(folder / "a.npy", array_of(DType::boolean, {})));
  CHECK(contains(read_text(folder / "a.npy"), "{'descr': '|b1', 'fortran_order': False, 'shape': (), }   "));
}

TEST_CASE("npy: the formats 2.0 and 3.0, other spellings, key orders and spaces") {
  for (const int major : {1, 2, 3}) CHECK(parse(npy(header("<f4", "(2,)"), "12345678", major)));
  for (const auto* descr : {"|V2", "<V2", "bfloat16"}) {
    const auto array = parse(npy(header(descr, "(1,)"), "12"));
    REQUIRE(array);
    CHECK(array->dtype == DType::bf16);
  }
  CHECK(parse(npy(header("=f4", "(1,)"), "1234")));
  CHECK(parse(npy("{\"shape\":(1 ,2),\"fortran_order\":False,\"descr\":\"<i2\"}  ", "1234")));
  CHECK(parse(npy(header("<i8", "(2L, 0L)"), "")));
  // One dimension has the same order either way.
  CHECK(parse(npy("{'descr': '<i2', 'fortran_order': True, 'shape': (2,), }", "1234")));
  // A zero extent makes it empty, whatever the others are.
  CHECK(parse(npy(header("<f8", "(0, 9000000000000000000, 9)"), "")));
}

TEST_CASE("npy: what cannot be read says why and what to do") {
  CHECK(contains(error_of(""), "not a .npy file"));
  CHECK(contains(error_of("PK\x03\x04 an archive"), "not a .npy file"));
  CHECK(contains(error_of("\x93NUM"), "truncated"));
  CHECK(contains(error_of(npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }", "")),
                 "Fortran order"));
  CHECK(contains(error_of(npy(header(">f4", "(1,)"), "1234")), "big-endian"));
  CHECK(contains(error_of(npy(header("|O", "(1,)"), "1234")), "Python objects"));
  CHECK(contains(error_of(npy(header("<c8", "(1,)"), "12345678")), "unsupported dtype `<c8`"));
  CHECK(contains(error_of(npy(header("<u8", "(1,)"), "12345678")), "unsupported dtype"));
  CHECK(contains(error_of(npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", "1234")),
                 "records"));
  CHECK(contains(error_of(npy(header("<f4", "(2,)"), "1234567")),
                 "truncated: 7 bytes of data where its shape needs 8"));
  CHECK(contains(error_of(npy(header("<f4", "(2,)"), "123456789")), "1 bytes after the end"));
  CHECK(contains(error_of(npy(header("<f4", "(-2,)"), "")), "negative"));
  CHECK(contains(error_of(npy(header("<f4", "(99999999999999999999,)"), "")), "too large"));
  CHECK(contains(error_of(npy(header("<f4", "(4294967296, 4294967296)"), "")), "too large"));
  CHECK(contains(error_of(npy(header("<f8", "(2305843009213693952,)"), "")), "too large"));
  CHECK(contains(error_of(npy(header("<f4", "(2 3)"), "")), "malformed"));
  CHECK(contains(error_of(npy(header("<f4", "2"), "")), "malformed"));
  CHECK(contains(error_of(npy("{'descr': '<f4', 'shape': (), }", "1234")), "malformed"));
  CHECK(contains(error_of(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (), 'x': 1}", "1234")),
                 "malformed"));
  CHECK(contains(error_of(npy("{'descr': '<f4", "")), "malformed"));
  CHECK(contains(error_of(npy(header("<f4", "()") + "x", "1234")), "malformed"));
  CHECK(contains(error_of(std::string("\x93NUMPY\x04\x00\x00\x00\x00\x00", 12)), "version 4.0"));
  CHECK(contains(error_of(std::string("\x93NUMPY\x02\x00\xff\xff\xff\x7f{", 13)),
                 "header of 2147483647 bytes"));
  std::string many = "(";
  for (int i = 0; i < 65; ++i) many += "1,";
  CHECK(contains(error_of(npy(header("<f4", many + ")"), "1234")), "more than 64 dimensions"));
}

TEST_CASE("npy: no damage crashes it, and no truncation is accepted") {
  const std::string good = npy(header("<f4", "(2, 3)"), "123456781234567812345678");
  REQUIRE(parse(good));
  for (std::size_t size = 0; size < good.size(); ++size) CHECK_FALSE(parse(good.substr(0, size)));
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    std::string bad = good;
    for (std::uint_fast32_t flips = 1 + random() % 3; flips > 0; --flips)
      bad[random() % bad.size()] = static_cast<char>(random());
    if (const auto array = parse(bad)) CHECK(array->bytes.size() <= 24);
  }
}

TEST_CASE("npy: a file that is not there, and a folder") {
  const TemporaryFolder folder;
  const auto absent = read_npy(folder / "absent.npy");
  REQUIRE_FALSE(absent);
  CHECK(contains(absent.error().message, "absent.npy`: No such file or directory"));
  CHECK_FALSE(read_npy(folder.path()));
}

TEST_CASE("npy: an output that cannot be written is found out before, and nothing is left behind") {
  const TemporaryFolder folder;
  CHECK(check_writable(folder / "new.npy"));
  CHECK(test::count_files(folder.path()) == 0);
  CHECK_FALSE(check_writable(folder.path()));
  CHECK_FALSE(check_writable(folder / "absent/new.npy"));
  CHECK_FALSE(write_npy(folder / "absent/new.npy", array_of(DType::f32, {1})));
  CHECK_FALSE(check_writable(""));
  CHECK(check_writable("/dev/null"));
  CHECK(write_npy("/dev/null", array_of(DType::f32, {1})));
  CHECK(std::filesystem::is_character_file("/dev/null"));

  write_text(folder / "old.npy", "old");
  CHECK(check_writable(folder / "old.npy"));
  CHECK(read_text(folder / "old.npy") == "old");
  if (::geteuid() == 0) {
    MESSAGE("skipped: write-protected files and folders, since root may write to them");
    return;
  }
  REQUIRE(::chmod((folder / "old.npy").c_str(), 0444) == 0);
  CHECK_FALSE(check_writable(folder / "old.npy"));
  REQUIRE(::chmod(folder.path().c_str(), 0555) == 0);
  CHECK_FALSE(check_writable(folder / "new.npy"));
  REQUIRE(::chmod(folder.path().c_str(), 0755) == 0);
}

TEST_CASE("npy: a link is followed and stays") {
  const TemporaryFolder folder;
  write_text(folder / "target.npy", "old");
  std::filesystem::create_symlink("target.npy", folder / "link.npy");
  REQUIRE(write_npy(folder / "link.npy", array_of(DType::f32, {1})));
  CHECK(std::filesystem::is_symlink(folder / "link.npy"));
  CHECK(read_npy(folder / "target.npy"));
}
