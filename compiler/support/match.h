// match(variant, [](const A&) {...}, [](const B&) {...}): a switch over a variant that must be complete.
#pragma once

#include <utility>
#include <variant>

namespace vicinal::support {

template <class... Fs>
struct Overload : Fs... {
  using Fs::operator()...;
};

template <class Variant, class... Fs>
decltype(auto) match(Variant&& value, Fs&&... cases) {
  return std::visit(Overload<std::decay_t<Fs>...>{std::forward<Fs>(cases)...}, std::forward<Variant>(value));
}

}  // namespace vicinal::support
