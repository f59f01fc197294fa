#include <nlohmann/json.hpp>

#include "compiler/diagnostics/render.h"

namespace vicinal::diagnostics {
namespace {

using nlohmann::ordered_json;

ordered_json place(source::Range range, const source::SourceMap& sources) {
  const source::Position begin = sources.position(range.file, range.begin);
  const source::Position end = sources.position(range.file, range.end);
  return {{"file", sources.name(range.file)},
          {"begin", range.begin},
          {"end", range.end},
          {"line", begin.line},
          {"column", begin.column},
          {"end_line", end.line},
          {"end_column", end.column}};
}

std::string_view level_name(Level level) {
  switch (level) {
    case Level::error: return "error";
    case Level::warning: return "warning";
    case Level::remark: return "remark";
  }
  return "";
}

}  // namespace

std::string render_json(std::span<const Diagnostic> diagnostics, const source::SourceMap& sources) {
  ordered_json list = ordered_json::array();
  for (const Diagnostic& d : diagnostics) {
    ordered_json item = {{"name", d.name()},
                         {"level", level_name(d.level())},
                         {"message", d.message},
                         {"range", place(d.range, sources)},
                         {"labels", ordered_json::array()},
                         {"fixes", ordered_json::array()},
                         {"notes", d.notes},
                         {"help", d.help}};
    if (!d.note_at_range.empty()) item["note_at_range"] = d.note_at_range;
    for (const Label& l : d.labels)
      item["labels"].push_back({{"range", place(l.range, sources)}, {"text", l.text}});
    for (const FixIt& f : d.fixes)
      item["fixes"].push_back({{"range", place(f.range, sources)}, {"text", f.text}});
    list.push_back(std::move(item));
  }
  // Bytes of a spec need not be UTF-8; what is not is replaced, since JSON must be.
  return ordered_json{{"schema", "vicinal.diagnostics.v1"}, {"diagnostics", std::move(list)}}.dump(
      2, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace vicinal::diagnostics
