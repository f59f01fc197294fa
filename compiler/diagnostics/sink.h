// Where the steps of a compilation put what they find.
#pragma once

#include <fmt/format.h>

#include <deque>

#include "compiler/diagnostics/diagnostic.h"

namespace vicinal::diagnostics {

class Sink {
 public:
  // The wording's {} take `arguments`. The reference stays valid.
  template <class... Args>
  Diagnostic& report(Kind kind, source::Range range, const Args&... arguments) {
    return add(kind, range, fmt::format(fmt::runtime(entry(kind).wording), arguments...));
  }

  std::size_t error_count() const { return errors_; }
  bool has_errors() const { return errors_ != 0; }
  // By place; what stands at one place keeps its order.
  std::vector<Diagnostic> sorted() const;

 private:
  Diagnostic& add(Kind kind, source::Range range, std::string message);

  std::deque<Diagnostic> all_;
  std::size_t errors_ = 0;
};

}  // namespace vicinal::diagnostics
