// A caller's tensor by the roles of its dimensions, whichever way its tokens are split.
#pragma once

#include "runtime/binding/problem.h"

namespace vicinal::runtime {

inline constexpr std::int64_t kMaxTokens = std::int64_t{1} << 31;  // positions are 32-bit

// The tensor's strides, or those of C order where it gives none, once its shape, its strides and its data
// agree. Errors name it.
Result<std::vector<std::int64_t>> checked_strides(const std::string& name, const Tensor& t);

struct TensorView {
  Strided strided;
  std::int64_t batch, heads, dim;    // dim 0: it has none
  std::vector<std::int64_t> tokens;  // per axis
};

// Of [batch, heads, tokens, dim], or with a dimension for each of `rank` axes in place of tokens; has_dim
// false leaves out dim, as an lse does. `split`: the extents of tokens that lie in one dimension.
Result<TensorView> view_tensor(const std::string& name, const Tensor& t, bool has_dim, std::size_t rank,
                               const std::vector<std::int64_t>& split);

}  // namespace vicinal::runtime
