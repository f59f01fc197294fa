#include "runtime/files/npy.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>

#include "compiler/support/check.h"
#include "runtime/files/atomic_file.h"

namespace vicinal::files {
namespace fs = std::filesystem;
namespace {

static_assert(std::endian::native == std::endian::little, "elements are copied as they lie in the file");

constexpr std::string_view kMagic("\x93NUMPY", 6);
constexpr std::size_t kMaxHeader = std::size_t{1} << 20;  // NumPy writes about 100 bytes
constexpr std::size_t kMaxRank = 64;                      // NumPy's own limit
constexpr std::size_t kAlignment = 64;                    // of the data, as NumPy asks for

// The first spelling of a type is the one we write.
constexpr struct {
  std::string_view descr;
  DType dtype;
} kDescrs[] = {
    {"<f2", DType::f16},       {"<f4", DType::f32},     {"<f8", DType::f64},  {"|i1", DType::i8},
    {"|u1", DType::u8},        {"<i2", DType::i16},     {"<u2", DType::u16},  {"<i4", DType::i32},
    {"<i8", DType::i64},       {"|b1", DType::boolean}, {"<V2", DType::bf16}, {"|V2", DType::bf16},
    {"bfloat16", DType::bf16}, {"<i1", DType::i8},      {"<u1", DType::u8},   {"<b1", DType::boolean},
};

std::optional<DType> dtype_of(std::string descr) {
  if (descr.starts_with('=')) descr[0] = '<';
  for (const auto& row : kDescrs)
    if (row.descr == descr) return row.dtype;
  return std::nullopt;
}

std::string_view descr_of(DType dtype) {
  return std::find_if(std::begin(kDescrs), std::end(kDescrs), [&](auto& row) { return row.dtype == dtype; })
      ->descr;
}

// nullopt when it does not fit.
std::optional<std::size_t> byte_count(DType dtype, const std::vector<std::int64_t>& shape) {
  // A zero extent makes an empty array, whatever the others would multiply to.
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  std::int64_t bytes = static_cast<std::int64_t>(size_of(dtype));
  for (const std::int64_t extent : shape)
    if (__builtin_mul_overflow(bytes, extent, &bytes)) return std::nullopt;
  return static_cast<std::size_t>(bytes);
}

struct Header {
  std::string descr;
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
};

// Reads the Python dictionary literal of a header: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3),
// }.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, std::string_view name) : text_(text), name_(name) {}

  Result<Header> parse() {
    Header header;
    bool has_descr = false, has_order = false, has_shape = false;
    if (!take('{')) return malformed("a `{`");
    while (!take('}')) {
      VICINAL_TRY(const std::string key, string());
      if (!take(':')) return malformed("a `:`");
      if (key == "descr") {
        VICINAL_TRY(header.descr, descr());
        has_descr = true;
      } else if (key == "fortran_order") {
        VICINAL_TRY(header.fortran_order, boolean());
        has_order = true;
      } else if (key == "shape") {
        VICINAL_TRY(header.shape, shape());
        has_shape = true;
      } else {
        return malformed(fmt::format("no key `{}`", key));
      }
      if (!take(',') && !at('}')) return malformed("a `,` or `}`");
    }
    skip_space();
    if (!text_.empty()) return malformed("nothing after the `}`");
    if (!has_descr || !has_order || !has_shape) {
      return malformed("the keys `descr`, `fortran_order` and `shape`");
    }
    return header;
  }

 private:
  Unexpected malformed(std::string_view expected) const {
    return unexpected(ErrorKind::usage,
                      fmt::format("`{}`: malformed .npy header: expected {}", name_, expected),
                      "write the array again with numpy.save");
  }

  void skip_space() { text_.remove_prefix(std::min(text_.find_first_not_of(" \t\n"), text_.size())); }
  bool at(char c) {
    skip_space();
    return text_.starts_with(c);
  }
  bool take(char c) {
    if (!at(c)) return false;
    text_.remove_prefix(1);
    return true;
  }
  bool take_word(std::string_view word) {
    skip_space();
    if (!text_.starts_with(word)) return false;
    text_.remove_prefix(word.size());
    return true;
  }

  Result<std::string> string() {
    const char quote = at('"') ? '"' : '\'';
    if (!take(quote)) return malformed("a string");
    const std::size_t end = text_.find(quote);
    if (end == std::string_view::npos) return malformed("the end of a string");
    std::string value(text_.substr(0, end));
    text_.remove_prefix(end + 1);
    return value;
  }

  Result<std::string> descr() {
    if (at('[')) {
      return unexpected(ErrorKind::usage, fmt::format("`{}` holds records, not numbers", name_),
                        "save one plain array per file, such as array['field'].copy()");
    }
    return string();
  }

  Result<bool> boolean() {
    if (take_word("True")) return true;
    if (take_word("False")) return false;
    return malformed("True or False");
  }

  Result<std::vector<std::int64_t>> shape() {
    std::vector<std::int64_t> extents;
    if (!take('(')) return malformed("a shape in parentheses");
    while (!take(')')) {
      VICINAL_TRY(const std::int64_t extent, integer());
      extents.push_back(extent);
      if (extents.size() > kMaxRank) {
        return unexpected(ErrorKind::usage, fmt::format("`{}` has more than {} dimensions", name_, kMaxRank),
                          "reshape the array before it is saved");
      }
      if (!take(',') && !at(')')) return malformed("a `,` or `)`");
    }
    return extents;
  }

  Result<std::int64_t> integer() {
    const bool negative = take('-');
    if (text_.empty() || text_[0] < '0' || text_[0] > '9') return malformed("a number");
    std::int64_t value = 0;
    bool overflow = false;
    for (; !text_.empty() && text_[0] >= '0' && text_[0] <= '9'; text_.remove_prefix(1)) {
      overflow |=
          __builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, text_[0] - '0', &value);
    }
    take_word("L");  // Python 2 wrote long integers so
    if (negative || overflow) {
      return unexpected(
          ErrorKind::usage,
          fmt::format("`{}`: an extent of the shape is {}", name_, negative ? "negative" : "too large"),
          "the file is damaged: write the array again with numpy.save");
    }
    return value;
  }

  std::string_view text_;
  std::string_view name_;
};

Result<DType> checked_dtype(const std::string& descr, std::string_view name) {
  if (const auto dtype = dtype_of(descr)) return *dtype;
  if (descr.starts_with('>')) {
    return unexpected(ErrorKind::usage, fmt::format("`{}` is big-endian (`{}`)", name, descr),
                      "save it as little-endian: array.astype(array.dtype.newbyteorder('<'))");
  }
  if (descr == "|O" || descr == "O") {
    return unexpected(ErrorKind::usage, fmt::format("`{}` holds Python objects, not numbers", name),
                      "convert the array to a numeric dtype, such as array.astype(numpy.float32)");
  }
  std::string known;
  for (const auto& row : kDescrs)
    if (known.find(row.descr.substr(1)) == known.npos)
      known += fmt::format("{}{}", known.empty() ? "" : " ", row.descr);
  return unexpected(ErrorKind::usage, fmt::format("`{}` has the unsupported dtype `{}`", name, descr),
                    fmt::format("convert it with array.astype(...) to one of: {}", known));
}

// Where the header's text lies in a file, and where the data begins.
struct Preamble {
  std::size_t header_begin;
  std::size_t data_begin;
};

Result<Preamble> parse_preamble(std::string_view file, std::string_view name) {
  const auto truncated = [&] {
    return unexpected(ErrorKind::usage,
                      fmt::format("`{}` is truncated: it ends within the .npy header", name),
                      "write or copy the file again");
  };
  if (!file.starts_with(kMagic.substr(0, std::min(kMagic.size(), file.size()))) || file.empty()) {
    return unexpected(ErrorKind::usage, fmt::format("`{}` is not a .npy file", name),
                      "write one array with numpy.save (not savez, not savetxt)");
  }
  if (file.size() < kMagic.size() + 2) return truncated();
  const auto byte = [&](std::size_t i) {
    return static_cast<std::size_t>(static_cast<unsigned char>(file[i]));
  };
  const std::size_t major = byte(6), minor = byte(7);
  if (major < 1 || major > 3 || minor != 0) {
    return unexpected(
        ErrorKind::usage,
        fmt::format("`{}` has the .npy format version {}.{}; 1.0 to 3.0 are known", name, major, minor),
        "write it again with numpy.save");
  }
  const std::size_t length_size = major == 1 ? 2 : 4;
  const std::size_t header_begin = kMagic.size() + 2 + length_size;
  if (file.size() < header_begin) return truncated();
  std::size_t length = 0;
  for (std::size_t i = 0; i < length_size; ++i) length |= byte(8 + i) << (8 * i);
  if (length > kMaxHeader) {
    return unexpected(
        ErrorKind::usage,
        fmt::format("`{}` has a .npy header of {} bytes; {} are the most", name, length, kMaxHeader),
        "the file is damaged or hostile: write the array again with numpy.save");
  }
  if (file.size() - header_begin < length) return truncated();
  return Preamble{header_begin, header_begin + length};
}

// Devices and pipes cannot be replaced by a rename, and need not be.
bool is_special(const fs::path& path) {
  std::error_code ignored;
  const fs::file_status status = fs::status(path, ignored);
  return fs::exists(status) && !fs::is_regular_file(status) && !fs::is_directory(status);
}

// The file a link stands for, so that the link survives the rename.
fs::path followed(const fs::path& path) {
  std::error_code error;
  if (!fs::is_symlink(fs::symlink_status(path, error))) return path;
  fs::path target = fs::weakly_canonical(path, error);
  return error ? path : target;
}

std::string encoded_header(const Array& array) {
  std::string shape;
  for (const std::int64_t extent : array.shape) shape += fmt::format("{}, ", extent);
  // One element needs its comma in Python, more need none.
  if (array.shape.size() == 1) shape.pop_back();
  if (array.shape.size() > 1) shape.resize(shape.size() - 2);
  std::string dict =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", descr_of(array.dtype), shape);
  constexpr std::size_t kPreamble = kMagic.size() + 4;
  const std::size_t unpadded = kPreamble + dict.size() + 1;
  dict.append((kAlignment - unpadded % kAlignment) % kAlignment, ' ');
  dict += '\n';
  std::string header(kMagic);
  header += {'\x01', '\x00', static_cast<char>(dict.size() & 0xff), static_cast<char>(dict.size() >> 8)};
  return header + dict;
}

}  // namespace

Result<Array> parse_npy(std::vector<std::byte> bytes, std::string_view name) {
  const std::string_view file(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  VICINAL_TRY(const Preamble preamble, parse_preamble(file, name));
  const std::string_view text =
      file.substr(preamble.header_begin, preamble.data_begin - preamble.header_begin);
  VICINAL_TRY(const Header header, HeaderParser(text, name).parse());
  Array array;
  VICINAL_TRY(array.dtype, checked_dtype(header.descr, name));
  array.shape = header.shape;
  // For at most one dimension the two orders are the same, and NumPy marks such arrays either way.
  if (header.fortran_order && array.shape.size() > 1) {
    return unexpected(ErrorKind::usage, fmt::format("`{}` is in Fortran order", name),
                      "save it in C order: numpy.save(path, numpy.ascontiguousarray(array))");
  }
  const auto expected = byte_count(array.dtype, array.shape);
  if (!expected) {
    return unexpected(ErrorKind::usage, fmt::format("`{}`: the product of the shape is too large", name),
                      "the file is damaged: write the array again with numpy.save");
  }
  const std::size_t actual = bytes.size() - preamble.data_begin;
  if (actual < *expected) {
    return unexpected(
        ErrorKind::usage,
        fmt::format("`{}` is truncated: {} bytes of data where its shape needs {}", name, actual, *expected),
        "write or copy the file again");
  }
  if (actual > *expected) {
    return unexpected(ErrorKind::usage,
                      fmt::format("`{}` has {} bytes after the end of its data", name, actual - *expected),
                      "write the array again with numpy.save, one array to a file");
  }
  bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(preamble.data_begin));
  array.bytes = std::move(bytes);
  return array;
}

Result<Array> read_npy(const fs::path& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) return system_error("read", path, EISDIR);
  errno = 0;
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return system_error("read", path, errno);
  std::vector<std::byte> bytes;
  const std::uintmax_t size = fs::file_size(path, error);
  if (!error) bytes.reserve(static_cast<std::size_t>(size));
  // To the end, not to the size: a pipe has none.
  for (std::size_t chunk = std::max<std::size_t>(bytes.capacity(), 1 << 16); stream; chunk = 1 << 16) {
    const std::size_t old_size = bytes.size();
    bytes.resize(old_size + chunk);
    stream.read(reinterpret_cast<char*>(bytes.data() + old_size), static_cast<std::streamsize>(chunk));
    bytes.resize(old_size + static_cast<std::size_t>(stream.gcount()));
  }
  if (stream.bad()) return system_error("read", path, EIO);
  return parse_npy(std::move(bytes), path.native());
}

Result<void> write_npy(const fs::path& path, const Array& array) {
  VICINAL_ASSERT(byte_count(array.dtype, array.shape) == array.bytes.size(),
                 "an array's bytes and shape disagree");
  const std::string header = encoded_header(array);
  const std::string_view data(reinterpret_cast<const char*>(array.bytes.data()), array.bytes.size());
  if (is_special(path)) {
    errno = 0;
    std::ofstream stream(path, std::ios::binary);
    stream << header << data << std::flush;
    if (!stream) return system_error("write", path, errno);
    return {};
  }
  VICINAL_TRY_VOID(check_writable(path));
  VICINAL_TRY(AtomicFile file, AtomicFile::create(followed(path)));
  VICINAL_TRY_VOID(file.append(header));
  VICINAL_TRY_VOID(file.append(data));
  return file.commit(/*durable=*/false);
}

Result<void> check_writable(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status) || path.filename().empty()) return system_error("write", path, EISDIR);
  // A rename would also replace a write-protected file; who protected it wants it kept.
  if (fs::exists(status) && ::access(path.c_str(), W_OK) != 0) return system_error("write", path, errno);
  if (is_special(path)) return {};
  VICINAL_TRY_VOID(AtomicFile::create(followed(path)));
  return {};
}

}  // namespace vicinal::files
