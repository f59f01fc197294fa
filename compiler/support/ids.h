// Typed indices into vectors: a NodeId cannot be passed where an ExprId is wanted.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace vicinal::support {

template <class Tag>
struct Id {
  static constexpr std::uint32_t kNone = 0xffffffffu;
  std::uint32_t value = kNone;

  constexpr bool valid() const { return value != kNone; }
  constexpr auto operator<=>(const Id&) const = default;
};

}  // namespace vicinal::support

template <class Tag>
struct std::hash<vicinal::support::Id<Tag>> {
  std::size_t operator()(vicinal::support::Id<Tag> id) const { return std::hash<std::uint32_t>()(id.value); }
};
