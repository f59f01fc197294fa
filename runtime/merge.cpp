#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "runtime/binding/strides.h"
#include "runtime/host/elements.h"

#include <vicinal/vicinal.h>

namespace vicinal {
namespace {

std::vector<std::int64_t> strides_of(const Tensor& t) {
  return t.strides.empty() ? runtime::c_order_strides(t.shape) : t.strides;
}

Result<void> expect(const std::string& name, const Tensor& t, const std::vector<std::int64_t>& shape) {
  if (t.shape != shape)
    return unexpected(ErrorKind::spec, fmt::format("`{}` has another shape than the first part", name),
                      "all parts and the result have one shape; an lse has it without the last dimension");
  if (!is_floating(t.dtype))
    return unexpected(ErrorKind::spec,
                      fmt::format("`{}` is {}, and must be a float type", name, name_of(t.dtype)));
  if (!t.strides.empty() && t.strides.size() != t.shape.size())
    return unexpected(ErrorKind::spec, fmt::format("`{}` has {} strides for {} dimensions", name,
                                                   t.strides.size(), t.shape.size()));
  for (std::int64_t extent : t.shape)
    if (extent < 0)
      return unexpected(ErrorKind::spec,
                        fmt::format("`{}` has an extent of {}, and must have none below 0", name, extent));
  for (std::int64_t extent : t.shape)
    if (extent == 0) return {};
  if (t.data == nullptr) return unexpected(ErrorKind::spec, fmt::format("`{}` has no data", name));
  return {};
}

}  // namespace

Result<void> merge(const std::vector<Tensor>& outs, const std::vector<Tensor>& lses, const Tensor& out,
                   const std::optional<Tensor>& lse) {
  if (outs.empty() || outs.size() != lses.size())
    return unexpected(ErrorKind::usage, fmt::format("merge takes an lse for each output: {} outputs, {} lses",
                                                    outs.size(), lses.size()));
  const std::vector<std::int64_t> shape = outs[0].shape;
  if (shape.empty()) return unexpected(ErrorKind::spec, "an output has at least one dimension");
  const std::vector<std::int64_t> row_shape(shape.begin(), shape.end() - 1);
  for (std::size_t i = 0; i < outs.size(); ++i) {
    VICINAL_TRY_VOID(expect(fmt::format("outs[{}]", i), outs[i], shape));
    VICINAL_TRY_VOID(expect(fmt::format("lses[{}]", i), lses[i], row_shape));
  }
  VICINAL_TRY_VOID(expect("out", out, shape));
  if (lse) VICINAL_TRY_VOID(expect("lse", *lse, row_shape));

  std::vector<std::vector<std::int64_t>> out_strides, lse_strides;
  for (std::size_t i = 0; i < outs.size(); ++i) {
    out_strides.push_back(strides_of(outs[i]));
    lse_strides.push_back(strides_of(lses[i]));
  }
  const std::vector<std::int64_t> result_strides = strides_of(out),
                                  result_lse_strides = lse ? strides_of(*lse) : std::vector<std::int64_t>();
  std::int64_t rows = 1;
  for (std::int64_t extent : row_shape) rows *= extent;
  const std::int64_t dim = shape.back();

  std::vector<std::int64_t> index(row_shape.size());
  const auto at = [&](const std::vector<std::int64_t>& strides) {
    std::int64_t offset = 0;
    for (std::size_t i = 0; i < index.size(); ++i) offset += index[i] * strides[i];
    return offset;
  };
  std::vector<double> parts(outs.size());
  for (std::int64_t row = 0; row < rows; ++row) {
    std::int64_t rest = row;
    for (std::size_t i = index.size(); i-- > 0; rest /= row_shape[i]) index[i] = rest % row_shape[i];
    constexpr double nothing = -std::numeric_limits<double>::infinity();
    double largest = nothing;
    bool empty = true;  // NaN is not nothing
    for (std::size_t i = 0; i < outs.size(); ++i) {
      parts[i] = host::load_element(lses[i].data, lses[i].dtype, at(lse_strides[i]));
      largest = parts[i] > largest ? parts[i] : largest;
      empty = empty && parts[i] == nothing;
    }
    double sum = 0;
    for (double part : parts) sum += empty ? 0 : std::exp(part - largest);
    const double total = empty ? largest : largest + std::log(sum);
    for (std::int64_t c = 0; c < dim; ++c) {
      double value = 0;
      // A part that saw no key weighs nothing, whatever stands in it.
      for (std::size_t i = 0; i < outs.size(); ++i)
        if (const double weight = empty ? 0 : std::exp(parts[i] - total); weight != 0)
          value += weight * host::load_element(outs[i].data, outs[i].dtype,
                                               at(out_strides[i]) + c * out_strides[i].back());
      host::store_element(out.data, out.dtype, at(result_strides) + c * result_strides.back(), value);
    }
    if (lse) host::store_element(lse->data, lse->dtype, at(result_lse_strides), total);
  }
  return {};
}

}  // namespace vicinal
