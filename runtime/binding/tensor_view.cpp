#include "runtime/binding/tensor_view.h"

#include <limits>

#include "compiler/support/int128.h"
#include "runtime/binding/errors.h"
#include "runtime/binding/strides.h"

namespace vicinal::runtime {

Result<std::vector<std::int64_t>> checked_strides(const std::string& name, const Tensor& t) {
  support::int128 elements = 1;
  for (std::int64_t extent : t.shape) {
    if (extent < 0 || extent >= kMaxTokens)
      return wrong("`{}` has shape {}: an extent is from 0 to 2^31 - 1", name, shape_text(t.shape));
    elements *= extent;
    if (elements > std::numeric_limits<std::int64_t>::max())
      return wrong("`{}` has shape {}: too many elements", name, shape_text(t.shape));
  }
  if (!t.strides.empty() && t.strides.size() != t.shape.size())
    return wrong("`{}` has {} strides for {} dimensions", name, t.strides.size(), t.shape.size());
  if (elements != 0 && t.data == nullptr) return wrong("`{}` has no data", name);
  return t.strides.empty() ? c_order_strides(t.shape) : t.strides;
}

Result<TensorView> view_tensor(const std::string& name, const Tensor& t, bool has_dim, std::size_t rank,
                               const std::vector<std::int64_t>& split) {
  VICINAL_TRY(const std::vector<std::int64_t> strides, checked_strides(name, t));
  const std::size_t tail = has_dim ? 1 : 0;
  const std::size_t token_dims = t.shape.size() - std::min(t.shape.size(), 2 + tail);
  if (t.shape.size() < 3 + tail || (token_dims != 1 && token_dims != rank))
    return wrong("`{}` has shape {}: it must be [batch, heads, tokens{}]{}", name, shape_text(t.shape),
                 has_dim ? ", dim" : "",
                 rank > 1 ? fmt::format(", with tokens in one dimension or in {}", rank) : "");
  TensorView v{{t.data, t.dtype, strides[0], strides[1], has_dim ? strides.back() : 0, {}},
               t.shape[0],
               t.shape[1],
               has_dim ? t.shape.back() : 0,
               {}};
  if (token_dims == rank) {
    v.tokens.assign(t.shape.begin() + 2, t.shape.begin() + 2 + static_cast<std::ptrdiff_t>(rank));
    v.strided.axis.assign(strides.begin() + 2, strides.begin() + 2 + static_cast<std::ptrdiff_t>(rank));
    return v;
  }
  // One dimension for all axes: the grid says how it is split.
  if (split.size() != rank)
    return wrong(
        "`{}` has shape {}, all tokens in one dimension: give the grid, or a dimension for each of the {} "
        "axes",
        name, shape_text(t.shape), rank);
  support::int128 product = 1;
  for (std::int64_t extent : split) product *= extent;
  if (product != t.shape[2])
    return wrong("`{}` has {} tokens, and the grid {} has another number", name, t.shape[2],
                 shape_text(split));
  v.tokens = split;
  v.strided.axis.resize(rank);
  std::int64_t step = strides[2];
  for (std::size_t i = rank; i-- > 0;) {
    v.strided.axis[i] = step;
    step *= split[i];
  }
  return v;
}

}  // namespace vicinal::runtime
