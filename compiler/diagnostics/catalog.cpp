#include "compiler/diagnostics/diagnostic.h"

namespace vicinal::diagnostics {

const std::vector<CatalogEntry>& catalog() {
  static const std::vector<CatalogEntry> entries = {
#define VICINAL_DIAGNOSTIC(id, name, level, wording, explanation) \
  {Kind::id, name, Level::level, wording, explanation},
#include "compiler/diagnostics/catalog.def"
  };
  return entries;
}

const CatalogEntry& entry(Kind kind) {
  return catalog()[static_cast<std::size_t>(kind)];
}

const CatalogEntry* find_entry(std::string_view name) {
  for (const CatalogEntry& e : catalog())
    if (e.name == name) return &e;
  return nullptr;
}

}  // namespace vicinal::diagnostics
