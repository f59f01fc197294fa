// A tensor in host memory, of any element type and layout. What lies between its elements is filled with one
// bits (NaN for floats), so that a stray read shows.
#pragma once

#include <vicinal/vicinal.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

namespace vicinal::testing {

using Index = std::vector<std::int64_t>;

class HostTensor {
 public:
  HostTensor() = default;
  // Strides in elements, negative ones included; empty: C order.
  HostTensor(DType dtype, Index shape, Index strides = {});

  DType dtype() const { return dtype_; }
  const Index& shape() const { return shape_; }
  const Index& strides() const { return strides_; }
  // Elements of memory, gaps included, and where among them the one with all indices 0 lies.
  const std::vector<std::byte>& bytes() const { return bytes_; }
  std::vector<std::byte>& bytes() { return bytes_; }
  std::int64_t origin() const { return origin_; }

  // Throws std::out_of_range for an index that is not there.
  double at(const Index& index) const;
  // Rounded to the element type.
  void set(const Index& index, double value);

  // Calls visit for every index, the last one fastest.
  void each(const std::function<void(const Index&)>& visit) const;
  HostTensor& fill(const std::function<double(const Index&)>& value);
  HostTensor& fill(double value) {
    return fill([&](const Index&) { return value; });
  }
  // Uniform in [low, high), whole numbers for ints.
  HostTensor& fill_random(std::mt19937& random, double low = -1, double high = 1);

  // The same elements through the public type; a tensor without elements has no data.
  Tensor view() const;

 private:
  std::size_t offset(const Index& index) const;

  DType dtype_ = DType::f32;
  Index shape_, strides_;
  std::int64_t origin_ = 0;
  std::vector<std::byte> bytes_;
};

// The distance between neighbouring values of the dtype around x, subnormals included.
double ulp(DType dtype, double x);

}  // namespace vicinal::testing
