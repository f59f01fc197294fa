// Tensors in host memory: made, filled with random numbers, read from .npy files and written to them.
#pragma once

#include <vicinal/vicinal.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/files/npy.h"

namespace vicinal::cli {

using Shape = std::vector<std::int64_t>;

// Of the shape [batch, heads, tokens..., dim]: heads before the tokens in memory, or after them.
enum class Layout { bhnd, bnhd };

// Host memory with its view. Shapes are logical ([batch, heads, tokens..., dim]); the layout is in the
// strides.
struct HostTensor {
  HostTensor() = default;
  HostTensor(HostTensor&&) = default;  // the view goes on pointing at the bytes; a copy's would not
  HostTensor& operator=(HostTensor&&) = default;

  std::vector<std::byte> bytes;
  Tensor view;

  std::int64_t elements() const;
  std::int64_t tokens() const;  // of a shape that ends with dim
};

// SplitMix64: every seed gives a stream of its own, the same on every machine.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du) {}
  std::uint64_t bits();
  double normal();

 private:
  double uniform() { return static_cast<double>((bits() >> 11) + 1) * 0x1p-53; }  // (0, 1]

  std::uint64_t state_;
};

// How many elements have these extents. Throws bad_alloc for what no address can reach.
std::int64_t product_of(const Shape& extents);

// Zeros, in the layout's order; has_dim false: the shape ends with the tokens.
HostTensor make_tensor(DType dtype, const Shape& shape, Layout layout, bool has_dim);
// Zeros, in C order.
HostTensor make_tensor(DType dtype, const Shape& shape);

// A shape without memory behind it: all places are one zero. For who asks what suits a problem and runs none.
HostTensor make_outline(DType dtype, const Shape& shape);

// Normally distributed elements. They depend on the seed alone, not on the number of threads.
void fill_normal(HostTensor& t, std::uint64_t seed);

// The array, whose shape is in the layout's order, converted to a dtype.
HostTensor tensor_from(const files::Array& array, DType dtype, Layout layout, bool has_dim = true);
// The array as it is.
HostTensor tensor_from(files::Array array);

// The tensor as f32 in C order of its logical shape, or of the layout's order, for a .npy file.
Result<void> write_tensor(const std::string& path, const HostTensor& tensor, Layout layout, bool has_dim);

}  // namespace vicinal::cli
