// NumPy's .npy files: format 1.0 to 3.0, little-endian, C order. bfloat16, which NumPy has no name for, is
// the two-byte void `<V2`, as ml_dtypes writes it.
#pragma once

#include <vicinal/dtype.h>
#include <vicinal/result.h>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

namespace vicinal::files {

struct Array {
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;  // an extent may be zero; an empty shape is one element
  std::vector<std::byte> bytes;     // the elements in C order, little-endian
};

Result<Array> read_npy(const std::filesystem::path& path);

// The same for bytes that are in memory already; `name` is what errors call them.
Result<Array> parse_npy(std::vector<std::byte> bytes, std::string_view name);

// Whole or not at all. A link is followed; a device or a pipe is written as it is.
Result<void> write_npy(const std::filesystem::path& path, const Array& array);

// Finds out, before any work is done, whether write_npy could write there; leaves nothing behind.
Result<void> check_writable(const std::filesystem::path& path);

}  // namespace vicinal::files
