#include <fmt/format.h>

#include <algorithm>

#include "compiler/diagnostics/render.h"

namespace vicinal::diagnostics {
namespace {

struct Palette {
  const char *error, *warning, *remark, *accent, *bold, *reset;
};
constexpr Palette kColor{"\033[1;31m", "\033[1;33m", "\033[1;36m", "\033[1;34m", "\033[1m", "\033[0m"};
constexpr Palette kPlain{"", "", "", "", "", ""};

// What is shown of a line: tabs as one space, control bytes as dots, so that carets stand under their
// columns.
std::string printable(std::string_view line) {
  std::string out(line);
  for (char& c : out)
    if (c == '\t')
      c = ' ';
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      c = '.';
  return out;
}

// Columns of carets count code points, not bytes.
std::size_t width(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

class TextRenderer {
 public:
  TextRenderer(const source::SourceMap& sources, bool color)
      : sources_(sources), palette_(color ? kColor : kPlain) {}

  std::string render(const Diagnostic& d) {
    out_.clear();
    const auto [word, paint] = heading(d.level());
    print("{}{}{}: {}{}{}  [{}]\n", paint, word, palette_.reset, palette_.bold, d.message, palette_.reset,
          d.name());
    gutter_ = digits(d.range);
    for (const Label& l : d.labels) gutter_ = std::max(gutter_, digits(l.range));
    const source::Position at = sources_.position(d.range.file, d.range.begin);
    print("{}--> {}:{}:{}\n", std::string(gutter_, ' '), printable(sources_.name(d.range.file)), at.line,
          at.column);
    frame(d.range, '^', paint, d.note_at_range);
    std::uint32_t file = d.range.file;
    for (const Label& l : d.labels) {
      if (l.range.file != file) {
        const source::Position there = sources_.position(l.range.file, l.range.begin);
        print("{}::: {}:{}:{}\n", std::string(gutter_, ' '), printable(sources_.name(l.range.file)),
              there.line, there.column);
        file = l.range.file;
      }
      frame(l.range, '-', palette_.accent, l.text);
    }
    for (const std::string& note : d.notes) print("{}note{}: {}\n", palette_.bold, palette_.reset, note);
    if (!d.help.empty()) print("{}help{}: {}\n", palette_.bold, palette_.reset, d.help);
    return out_;
  }

 private:
  template <class... Args>
  void print(const char* format, const Args&... arguments) {
    fmt::format_to(std::back_inserter(out_), fmt::runtime(format), arguments...);
  }

  std::pair<const char*, const char*> heading(Level level) const {
    if (level == Level::error) return {"error", palette_.error};
    if (level == Level::warning) return {"warning", palette_.warning};
    return {"remark", palette_.remark};
  }

  std::size_t digits(source::Range r) const {
    return fmt::formatted_size("{}", sources_.position(r.file, r.begin).line);
  }

  // One source line and the mark under its range; a range of several lines is marked to its first line's end.
  void frame(source::Range range, char mark, const char* paint, const std::string& text) {
    const source::Position begin = sources_.position(range.file, range.begin);
    const std::string_view line = sources_.line(range.file, begin.line);
    const std::size_t first = std::min<std::size_t>(begin.column - 1, line.size());
    const std::size_t length = std::min<std::size_t>(range.end - range.begin, line.size() - first);
    const std::size_t marks = std::max<std::size_t>(1, width(line.substr(first, length)));
    print("{}{:>{}} |{} {}\n", palette_.accent, begin.line, gutter_, palette_.reset, printable(line));
    print("{}{} |{} {}{}{}{}{}{}\n", palette_.accent, std::string(gutter_, ' '), palette_.reset,
          std::string(width(line.substr(0, first)), ' '), paint, std::string(marks, mark),
          text.empty() ? "" : " ", text, palette_.reset);
  }

  const source::SourceMap& sources_;
  const Palette& palette_;
  std::string out_;
  std::size_t gutter_ = 1;
};

}  // namespace

std::string render_text(std::span<const Diagnostic> diagnostics, const source::SourceMap& sources,
                        bool color) {
  TextRenderer renderer(sources, color);
  std::string out;
  for (const Diagnostic& d : diagnostics) out += renderer.render(d) + "\n";
  return out;
}

}  // namespace vicinal::diagnostics
