// Tokens by number, by coordinates, and by where their elements lie.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/binding/problem.h"

namespace vicinal::cpu {

// Splits a flattened local token into local coordinates.
inline void local_coordinates(const std::vector<runtime::GridAxis>& axes, std::int64_t token,
                              std::vector<std::int64_t>& local) {
  local.resize(axes.size());
  for (std::size_t i = axes.size(); i-- > 0;) {
    local[i] = token % axes[i].local;
    token /= axes[i].local;
  }
}
inline std::vector<std::int64_t> local_coordinates(const std::vector<runtime::GridAxis>& axes,
                                                   std::int64_t token) {
  std::vector<std::int64_t> local;
  local_coordinates(axes, token, local);
  return local;
}

// The whole grid's position of a token, with its coordinates.
inline std::int64_t position(const std::vector<runtime::GridAxis>& axes,
                             const std::vector<std::int64_t>& local, std::vector<std::int64_t>& coordinate) {
  std::int64_t at = 0;
  coordinate.resize(local.size());
  for (std::size_t i = 0; i < local.size(); ++i) {
    coordinate[i] = local[i] + axes[i].origin;
    at = at * axes[i].extent + coordinate[i];
  }
  return at;
}

// Of the first element of a token.
inline std::int64_t offset(const runtime::Strided& t, std::int64_t batch, std::int64_t head,
                           const std::vector<std::int64_t>& local) {
  std::int64_t at = batch * t.batch + head * t.head;
  for (std::size_t i = 0; i < local.size(); ++i) at += local[i] * t.axis[i];
  return at;
}

// What l2norm divides by.
inline constexpr double kLeastNorm = 1e-12;
template <class Real>
Real norm(const std::vector<Real>& x) {
  Real squares = 0;
  for (const Real v : x) squares += v * v;
  return std::max(std::sqrt(squares), static_cast<Real>(kLeastNorm));
}

}  // namespace vicinal::cpu
