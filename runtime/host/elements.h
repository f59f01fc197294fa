// Tensor elements in host memory, by dtype.
#pragma once

#include <vicinal/dtype.h>

#include <cstdint>

namespace vicinal::host {

// `offset` counts elements.
double load_element(const void* data, DType dtype, std::int64_t offset);
void store_element(void* data, DType dtype, std::int64_t offset, double value);

// The number that a tensor would have in its place.
double rounded(double value, DType dtype);

// Elements `stride` apart.
void load_elements(const void* data, DType dtype, std::int64_t offset, std::int64_t stride,
                   std::int64_t count, double* values);

// Elements `stride` apart, rounded to nearest, of a float dtype.
void store_floats(void* data, DType dtype, std::int64_t offset, std::int64_t stride, const float* values,
                  std::int64_t count);

}  // namespace vicinal::host
