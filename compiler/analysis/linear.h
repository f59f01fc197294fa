// Sums of extents with whole coefficients: 2 * tokens - keys + 1.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "compiler/ir/module.h"

namespace vicinal::analysis {

class Linear {
 public:
  Linear() = default;
  explicit Linear(std::int64_t constant) : constant_(constant) {}
  static Linear symbol(ir::Symbol s) {
    Linear l;
    l.terms_[{s.kind, s.index}] = 1;
    return l;
  }

  Linear operator+(const Linear& other) const { return combine(other, 1); }
  Linear operator-(const Linear& other) const { return combine(other, -1); }
  // Nothing when a coefficient leaves 62 bits.
  std::optional<Linear> times(std::int64_t factor) const;
  friend bool operator==(const Linear&, const Linear&) = default;
  friend auto operator<=>(const Linear&, const Linear&) = default;

  std::optional<std::int64_t> constant() const {
    return terms_.empty() ? std::optional(constant_) : std::nullopt;
  }
  Linear without_constant() const {
    Linear l = *this;
    l.constant_ = 0;
    return l;
  }
  // The least value over all extents that a non-empty problem can have; saturates to 64 bits.
  std::int64_t least() const;
  bool never_negative() const { return least() >= 0; }
  // Nothing when a symbol is not known. 128-bit inside; saturates to 64 bits.
  std::optional<std::int64_t> evaluate(
      const std::function<std::optional<std::int64_t>(const ir::Symbol&)>& lookup) const;
  std::string print(const ir::Module& module) const;

 private:
  using Key = std::pair<ir::SymbolKind, std::uint32_t>;
  Linear combine(const Linear& other, std::int64_t sign) const;

  std::map<Key, std::int64_t> terms_;
  std::int64_t constant_ = 0;
};

}  // namespace vicinal::analysis
