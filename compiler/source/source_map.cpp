#include "compiler/source/source_map.h"

#include <algorithm>

namespace vicinal::source {

std::uint32_t SourceMap::add(std::string name, std::string text) {
  File file{std::move(name), std::move(text), {0}};
  for (std::uint32_t i = 0; i < file.text.size(); ++i)
    if (file.text[i] == '\n') file.line_starts.push_back(i + 1);
  files_.push_back(std::move(file));
  return static_cast<std::uint32_t>(files_.size() - 1);
}

Position SourceMap::position(std::uint32_t file, std::uint32_t offset) const {
  const auto& starts = files_[file].line_starts;
  const auto next = std::upper_bound(starts.begin(), starts.end(), offset);
  const auto line = static_cast<std::uint32_t>(next - starts.begin());
  return {line, offset - starts[line - 1] + 1};
}

std::string_view SourceMap::line(std::uint32_t file, std::uint32_t line) const {
  const File& f = files_[file];
  if (line == 0 || line > f.line_starts.size()) return {};
  const std::uint32_t begin = f.line_starts[line - 1];
  std::uint32_t end =
      line < f.line_starts.size() ? f.line_starts[line] - 1 : static_cast<std::uint32_t>(f.text.size());
  if (end > begin && f.text[end - 1] == '\r') --end;
  return std::string_view(f.text).substr(begin, end - begin);
}

std::size_t SourceMap::total_bytes() const {
  std::size_t total = 0;
  for (const File& file : files_) total += file.text.size();
  return total;
}

}  // namespace vicinal::source
