// The texts that a compilation reads, and places in them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vicinal::source {

// A half-open range of bytes in one file.
struct Range {
  std::uint32_t file = 0;
  std::uint32_t begin = 0, end = 0;

  friend bool operator==(const Range&, const Range&) = default;
};

// From the first byte of a to the last of b, which stand in the same file.
inline Range join(Range a, Range b) {
  return {a.file, a.begin < b.begin ? a.begin : b.begin, a.end > b.end ? a.end : b.end};
}

// Both count from 1; columns are bytes.
struct Position {
  std::uint32_t line, column;
};

class SourceMap {
 public:
  // `name` is what diagnostics show; returns the file's number.
  std::uint32_t add(std::string name, std::string text);

  std::size_t size() const { return files_.size(); }
  std::string_view name(std::uint32_t file) const { return files_[file].name; }
  std::string_view text(std::uint32_t file) const { return files_[file].text; }
  std::string_view text(Range range) const {
    return text(range.file).substr(range.begin, range.end - range.begin);
  }
  Position position(std::uint32_t file, std::uint32_t offset) const;
  // The line's bytes without its end.
  std::string_view line(std::uint32_t file, std::uint32_t line) const;
  std::size_t total_bytes() const;

 private:
  struct File {
    std::string name, text;
    std::vector<std::uint32_t> line_starts;
  };
  std::vector<File> files_;
};

}  // namespace vicinal::source
