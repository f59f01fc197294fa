#include "compiler/diagnostics/sink.h"

#include <algorithm>
#include <tuple>

namespace vicinal::diagnostics {

Diagnostic& Sink::add(Kind kind, source::Range range, std::string message) {
  if (entry(kind).level == Level::error) ++errors_;
  Diagnostic& d = all_.emplace_back();
  d.kind = kind;
  d.range = range;
  d.message = std::move(message);
  return d;
}

std::vector<Diagnostic> Sink::sorted() const {
  std::vector<Diagnostic> result(all_.begin(), all_.end());
  std::stable_sort(result.begin(), result.end(), [](const Diagnostic& a, const Diagnostic& b) {
    return std::tie(a.range.file, a.range.begin) < std::tie(b.range.file, b.range.begin);
  });
  // A function that several blocks call is checked for each of them; what is said of it is said once.
  const auto again = std::unique(result.begin(), result.end(), [](const Diagnostic& a, const Diagnostic& b) {
    return a.kind == b.kind && a.range == b.range && a.message == b.message;
  });
  result.erase(again, result.end());
  return result;
}

}  // namespace vicinal::diagnostics
