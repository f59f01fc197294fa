#include <cmath>
#include <cstring>

#include "runtime/files/half.h"
#include "runtime/host/elements.h"

namespace vicinal::host {
namespace {

template <class T>
T read(const void* data, std::int64_t offset) {
  T value;
  std::memcpy(&value, static_cast<const std::byte*>(data) + offset * static_cast<std::int64_t>(sizeof(T)),
              sizeof value);
  return value;
}

template <class T>
void write(void* data, std::int64_t offset, T value) {
  std::memcpy(static_cast<std::byte*>(data) + offset * static_cast<std::int64_t>(sizeof(T)), &value,
              sizeof value);
}

}  // namespace

double load_element(const void* data, DType dtype, std::int64_t offset) {
  switch (dtype) {
    case DType::f16: return files::float_from_f16(read<std::uint16_t>(data, offset));
    case DType::bf16: return files::float_from_bf16(read<std::uint16_t>(data, offset));
    case DType::f32: return read<float>(data, offset);
    case DType::f64: return read<double>(data, offset);
    case DType::i8: return read<std::int8_t>(data, offset);
    case DType::u8: return read<std::uint8_t>(data, offset);
    case DType::i16: return read<std::int16_t>(data, offset);
    case DType::u16: return read<std::uint16_t>(data, offset);
    case DType::i32: return read<std::int32_t>(data, offset);
    case DType::i64: return static_cast<double>(read<std::int64_t>(data, offset));
    case DType::boolean: return read<std::uint8_t>(data, offset) != 0;
  }
  return 0;
}

// A double goes to a 16-bit format through float; the oracle's own error is far below that double rounding.
void store_element(void* data, DType dtype, std::int64_t offset, double value) {
  switch (dtype) {
    case DType::f16: return write(data, offset, files::f16_from_float(static_cast<float>(value)));
    case DType::bf16: return write(data, offset, files::bf16_from_float(static_cast<float>(value)));
    case DType::f32: return write(data, offset, static_cast<float>(value));
    case DType::f64: return write(data, offset, value);
    case DType::i8: return write(data, offset, static_cast<std::int8_t>(value));
    case DType::u8: return write(data, offset, static_cast<std::uint8_t>(value));
    case DType::i16: return write(data, offset, static_cast<std::int16_t>(value));
    case DType::u16: return write(data, offset, static_cast<std::uint16_t>(value));
    case DType::i32: return write(data, offset, static_cast<std::int32_t>(value));
    case DType::i64: return write(data, offset, static_cast<std::int64_t>(value));
    case DType::boolean: return write(data, offset, static_cast<std::uint8_t>(value != 0));
  }
}

double rounded(double value, DType dtype) {
  std::uint64_t cell = 0;
  store_element(&cell, dtype, 0, value);
  return load_element(&cell, dtype, 0);
}

void load_elements(const void* data, DType dtype, std::int64_t offset, std::int64_t stride,
                   std::int64_t count, double* values) {
  // A loop for each of the usual types, without a choice in it.
  const auto load = [&]<class T>(T, auto convert) {
    for (std::int64_t i = 0; i < count; ++i) values[i] = convert(read<T>(data, offset + i * stride));
  };
  switch (dtype) {
    case DType::f16: return load(std::uint16_t{}, files::float_from_f16);
    case DType::bf16: return load(std::uint16_t{}, files::float_from_bf16);
    case DType::f32: return load(float{}, [](float x) { return x; });
    case DType::f64: return load(double{}, [](double x) { return x; });
    default:
      for (std::int64_t i = 0; i < count; ++i) values[i] = load_element(data, dtype, offset + i * stride);
  }
}

void store_floats(void* data, DType dtype, std::int64_t offset, std::int64_t stride, const float* values,
                  std::int64_t count) {
  // A loop for each of the usual types, without a choice in it.
  const auto store = [&](auto convert) {
    if (stride == 1)
      for (std::int64_t i = 0; i < count; ++i) write(data, offset + i, convert(values[i]));
    else
      for (std::int64_t i = 0; i < count; ++i) write(data, offset + i * stride, convert(values[i]));
  };
  switch (dtype) {
    case DType::f16: return store(files::f16_from_float);
    case DType::bf16: return store(files::bf16_from_float);
    case DType::f32: return store([](float x) { return x; });
    default:
      for (std::int64_t i = 0; i < count; ++i) store_element(data, dtype, offset + i * stride, values[i]);
  }
}

}  // namespace vicinal::host
