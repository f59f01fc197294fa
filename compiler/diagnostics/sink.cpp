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
  // By place, then by arrival.
  std::vector<std::pair<std::size_t, const Diagnostic*>> order;
  for (const Diagnostic& d : all_) order.emplace_back(order.size(), &d);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    const source::Range &x = a.second->range, &y = b.second->range;
    return std::tie(x.file, x.begin, a.first) < std::tie(y.file, y.begin, b.first);
  });
  std::vector<Diagnostic> result;
  for (const auto& [arrival, diagnostic] : order) result.push_back(*diagnostic);
  // A function that several blocks call is checked for each of them; what is said of it is said once.
  const auto again = std::unique(result.begin(), result.end(), [](const Diagnostic& a, const Diagnostic& b) {
    return a.kind == b.kind && a.range == b.range && a.message == b.message;
  });
  result.erase(again, result.end());
  return result;
}

}  // namespace vicinal::diagnostics
