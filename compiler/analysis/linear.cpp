#include "compiler/analysis/linear.h"

#include <fmt/format.h>

#include <limits>

#include "compiler/ir/text.h"
#include "compiler/support/int128.h"

namespace vicinal::analysis {

using ir::SymbolKind;

namespace {

// What a symbol can be in a problem that computes anything. A param can be any int; extents are below 2^31.
std::int64_t least_of(SymbolKind kind) {
  if (kind == SymbolKind::param) return std::numeric_limits<std::int32_t>::min();
  return kind == SymbolKind::named_extent || kind == SymbolKind::context ? 0 : 1;
}
constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();

std::int64_t saturated(support::int128 x) {
  constexpr support::int128 lowest = std::numeric_limits<std::int64_t>::min(),
                            highest = std::numeric_limits<std::int64_t>::max();
  return static_cast<std::int64_t>(x < lowest ? lowest : x > highest ? highest : x);
}

}  // namespace

Linear Linear::combine(const Linear& other, std::int64_t sign) const {
  Linear result = *this;
  result.constant_ += sign * other.constant_;
  for (const auto& [key, coefficient] : other.terms_) {
    std::int64_t& sum = result.terms_[key];
    sum += sign * coefficient;
    if (sum == 0) result.terms_.erase(key);
  }
  return result;
}

std::optional<Linear> Linear::times(std::int64_t factor) const {
  constexpr std::int64_t limit = std::int64_t{1} << 31;
  Linear result;
  if (factor == 0) return result;
  const auto fits = [&](std::int64_t x) { return x > -limit && x < limit; };
  if (!fits(factor) || !fits(constant_)) return std::nullopt;
  result.constant_ = constant_ * factor;
  for (const auto& [key, coefficient] : terms_) {
    if (!fits(coefficient)) return std::nullopt;
    result.terms_[key] = coefficient * factor;
  }
  return result;
}

std::int64_t Linear::least() const {
  support::int128 minimum = constant_;
  for (const auto& [key, coefficient] : terms_)
    minimum += static_cast<support::int128>(coefficient) * (coefficient < 0 ? kMost : least_of(key.first));
  return saturated(minimum);
}

std::optional<std::int64_t> Linear::evaluate(
    const std::function<std::optional<std::int64_t>(const ir::Symbol&)>& lookup) const {
  support::int128 sum = constant_;
  for (const auto& [key, coefficient] : terms_) {
    const auto value = lookup({key.first, key.second});
    if (!value) return std::nullopt;
    sum += static_cast<support::int128>(coefficient) * *value;
  }
  return saturated(sum);
}

std::string Linear::print(const ir::Module& module) const {
  std::string out;
  for (const auto& [key, coefficient] : terms_) {
    std::string name = ir::spell(module, {key.first, key.second});
    if (key.first == SymbolKind::axis_length)
      name = fmt::format("len({})", module.axes[key.second].name);
    else if (const auto space = name.find(' '); space != std::string::npos)
      name = name.substr(space + 1);
    const std::int64_t size = coefficient < 0 ? -coefficient : coefficient;
    out += out.empty() ? (coefficient < 0 ? "-" : "") : (coefficient < 0 ? " - " : " + ");
    out += size == 1 ? name : fmt::format("{} * {}", size, name);
  }
  if (out.empty()) return fmt::format("{}", constant_);
  if (constant_ != 0)
    out += fmt::format(" {} {}", constant_ < 0 ? "-" : "+", constant_ < 0 ? -constant_ : constant_);
  return out;
}

}  // namespace vicinal::analysis
