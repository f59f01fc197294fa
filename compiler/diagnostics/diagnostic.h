// A diagnostic as data: what is wrong, where, and what to write instead. Words come from catalog.def.
#pragma once

#include <string>
#include <vector>

#include "compiler/source/source_map.h"

namespace vicinal::diagnostics {

enum class Level { error, warning, remark };

enum class Kind {
#define VICINAL_DIAGNOSTIC(id, name, level, wording, explanation) id,
#include "compiler/diagnostics/catalog.def"
};

struct CatalogEntry {
  Kind kind;
  std::string_view name;  // "unknown-name"
  Level level;
  std::string_view wording;      // a fmt string
  std::string_view explanation;  // what `vicinal explain NAME` prints
};

const CatalogEntry& entry(Kind kind);
// Null when there is none of that name.
const CatalogEntry* find_entry(std::string_view name);
const std::vector<CatalogEntry>& catalog();

// A second place that matters, with a few words.
struct Label {
  source::Range range;
  std::string text;
};

// A replacement that is sure to be what was meant.
struct FixIt {
  source::Range range;
  std::string text;
};

struct Diagnostic {
  Kind kind;
  std::string message;
  source::Range range;
  std::string note_at_range;  // words beside the caret; may be empty
  std::vector<Label> labels;
  std::vector<FixIt> fixes;
  std::vector<std::string> notes;
  std::string help;

  Diagnostic& at(std::string text) { return note_at_range = std::move(text), *this; }
  Diagnostic& label(source::Range where, std::string text) {
    return labels.push_back({where, std::move(text)}), *this;
  }
  Diagnostic& note(std::string text) { return notes.push_back(std::move(text)), *this; }
  Diagnostic& with_help(std::string text) { return help = std::move(text), *this; }
  // Also words the help, unless there is one.
  Diagnostic& fix(source::Range where, std::string text) {
    if (help.empty()) help = "write `" + text + "`";
    return fixes.push_back({where, std::move(text)}), *this;
  }
  Level level() const { return entry(kind).level; }
  std::string_view name() const { return entry(kind).name; }
};

}  // namespace vicinal::diagnostics
