#include "cli/host_tensor.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <numbers>
#include <numeric>

#include "runtime/binding/strides.h"
#include "runtime/host/elements.h"
#include "runtime/host/parallel.h"

namespace vicinal::cli {
namespace {

// Of extents. What no address can reach is reported as what this machine's memory cannot hold.
std::int64_t times(std::int64_t a, std::int64_t b) {
  constexpr std::int64_t kMaxElements = std::int64_t{1} << 58;
  std::int64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product) || product > kMaxElements) throw std::bad_alloc();
  return product;
}

// A logical [batch, heads, tokens..., dim] shape as it lies in memory, and back.
template <class T>
void to_memory_order(std::vector<T>& dimensions, Layout layout, bool has_dim) {
  if (layout == Layout::bnhd)
    std::rotate(dimensions.begin() + 1, dimensions.begin() + 2, dimensions.end() - (has_dim ? 1 : 0));
}
template <class T>
void to_logical_order(std::vector<T>& dimensions, Layout layout, bool has_dim) {
  const auto heads = dimensions.end() - (has_dim ? 2 : 1);
  if (layout == Layout::bnhd) std::rotate(dimensions.begin() + 1, heads, heads + 1);
}

HostTensor allocate(DType dtype, const Shape& shape, const Shape& strides) {
  HostTensor t;
  t.view = {nullptr, dtype, shape, strides};
  t.bytes.resize(static_cast<std::size_t>(t.elements()) * size_of(dtype));
  t.view.data = t.bytes.data();
  return t;
}

}  // namespace

std::int64_t HostTensor::elements() const {
  return product_of(view.shape);
}

std::int64_t HostTensor::tokens() const {
  return product_of({view.shape.begin() + 2, view.shape.end() - 1});
}

std::uint64_t Random::bits() {
  std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

double Random::normal() {
  const double radius = std::sqrt(-2 * std::log(uniform()));  // first: the order decides the number
  return radius * std::cos(2 * std::numbers::pi * uniform());
}

std::int64_t product_of(const Shape& extents) {
  return std::accumulate(extents.begin(), extents.end(), std::int64_t{1}, times);
}

HostTensor make_tensor(DType dtype, const Shape& shape, Layout layout, bool has_dim) {
  Shape strides = shape;
  to_memory_order(strides, layout, has_dim);
  strides = runtime::c_order_strides(strides);
  to_logical_order(strides, layout, has_dim);
  return allocate(dtype, shape, strides);
}

HostTensor make_tensor(DType dtype, const Shape& shape) {
  return allocate(dtype, shape, runtime::c_order_strides(shape));
}

HostTensor make_outline(DType dtype, const Shape& shape) {
  HostTensor t = make_tensor(dtype, Shape{});
  t.view.shape = shape;
  t.view.strides.assign(shape.size(), 0);
  return t;
}

void fill_normal(HostTensor& t, std::uint64_t seed) {
  // Chunk by chunk, each with a stream of its own.
  constexpr std::int64_t kChunk = 1 << 16;
  const std::int64_t elements = t.elements();
  host::parallel_for((elements + kChunk - 1) / kChunk, host::default_threads(), [&](std::int64_t chunk) {
    Random source(seed * 0x100000001b3u + static_cast<std::uint64_t>(chunk));
    for (std::int64_t i = chunk * kChunk; i < std::min(elements, (chunk + 1) * kChunk); ++i)
      host::store_element(t.view.data, t.view.dtype, i, source.normal());
  });
}

HostTensor tensor_from(const files::Array& array, DType dtype, Layout layout, bool has_dim) {
  Shape shape = array.shape;
  to_logical_order(shape, layout, has_dim);
  HostTensor t = make_tensor(dtype, shape, layout, has_dim);
  // The file's order is the layout's, so elements go over one by one.
  for (std::int64_t i = 0; i < t.elements(); ++i)
    host::store_element(t.view.data, dtype, i, host::load_element(array.bytes.data(), array.dtype, i));
  return t;
}

HostTensor tensor_from(files::Array array) {
  HostTensor t;
  t.bytes = std::move(array.bytes);
  t.view = {t.bytes.data(), array.dtype, array.shape, runtime::c_order_strides(array.shape)};
  return t;
}

Result<void> write_tensor(const std::string& path, const HostTensor& tensor, Layout layout, bool has_dim) {
  files::Array array;
  array.dtype = DType::f32;
  array.shape = tensor.view.shape;
  to_memory_order(array.shape, layout, has_dim);
  array.bytes.resize(static_cast<std::size_t>(tensor.elements()) * 4);
  for (std::int64_t i = 0; i < tensor.elements(); ++i)
    host::store_element(array.bytes.data(), DType::f32, i,
                        host::load_element(tensor.bytes.data(), tensor.view.dtype, i));
  return files::write_npy(path, array);
}

}  // namespace vicinal::cli
