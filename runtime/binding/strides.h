// Where the elements of a tensor lie that has no strides of its own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace vicinal::runtime {

// Strides of a shape in C order: the last dimension is the fastest. Total: an extent of 0 counts as 1, and
// what no address could reach wraps, since a tensor with such strides has no element to be found by them.
inline std::vector<std::int64_t> c_order_strides(const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> strides(shape.size());
  std::uint64_t step = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = static_cast<std::int64_t>(step);
    step *= static_cast<std::uint64_t>(std::max<std::int64_t>(1, shape[i]));
  }
  return strides;
}

}  // namespace vicinal::runtime
