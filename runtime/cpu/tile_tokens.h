// The tokens of a tile, and where their rows lie.
#pragma once

#include <vector>

#include "runtime/plan/tile_grid.h"

namespace vicinal::cpu {

// Every index of a box, the last axis fastest: visit(n, token by axis), tokens as coordinates of the grid.
template <class Visit>
void each_token(const std::vector<Stretch>& box, const plan::TileGrid& grid, Visit visit) {
  std::int32_t token[plan::kMaxRank], left[plan::kMaxRank];
  const std::size_t rank = box.size();
  for (std::size_t i = 0; i < rank; ++i) token[i] = box[i].first, left[i] = box[i].count;
  for (std::int64_t n = 0;; ++n) {
    visit(n, token);
    std::size_t i = rank;
    while (i > 0) {
      token[i - 1] += grid.axis(i - 1).dilation;
      if (--left[i - 1] > 0) break;
      token[i - 1] = box[i - 1].first;
      left[i - 1] = box[i - 1].count;
      --i;
    }
    if (i == 0) return;
  }
}

inline std::int64_t tokens_of(const std::vector<Stretch>& box) {
  std::int64_t count = 1;
  for (const Stretch& s : box) count *= s.count;
  return count;
}

inline std::int64_t offset_of(const runtime::Strided& t, const std::vector<runtime::GridAxis>& axes,
                              const std::int32_t* token) {
  std::int64_t at = 0;
  for (std::size_t i = 0; i < axes.size(); ++i) at += (token[i] - axes[i].origin) * t.axis[i];
  return at;
}

// The row of a token's in a tensor that holds the local tokens one after another.
inline std::int64_t local_row(const std::vector<runtime::GridAxis>& axes, const std::int32_t* token) {
  std::int64_t at = 0;
  for (std::size_t i = 0; i < axes.size(); ++i) at = at * axes[i].local + (token[i] - axes[i].origin);
  return at;
}

inline const void* slice_of(const runtime::Strided& t, std::int64_t b, std::int64_t h) {
  if (t.data == nullptr) return nullptr;
  return static_cast<const std::byte*>(t.data) +
         (b * t.batch + h * t.head) * static_cast<std::int64_t>(size_of(t.dtype));
}

}  // namespace vicinal::cpu
