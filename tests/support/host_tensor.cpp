#include "tests/support/host_tensor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "runtime/files/half.h"

namespace vicinal::testing {
namespace {

template <class T>
T read(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

template <class T>
void write(std::byte* at, double value) {
  const T narrow = static_cast<T>(value);
  std::memcpy(at, &narrow, sizeof narrow);
}

void write_bits(std::byte* at, std::uint16_t bits) {
  std::memcpy(at, &bits, sizeof bits);
}

}  // namespace

HostTensor::HostTensor(DType dtype, Index shape, Index strides)
    : dtype_(dtype), shape_(std::move(shape)), strides_(std::move(strides)) {
  if (strides_.empty()) {
    strides_.resize(shape_.size());
    std::int64_t step = 1;
    for (std::size_t i = shape_.size(); i-- > 0; step *= std::max<std::int64_t>(shape_[i], 1))
      strides_[i] = step;
  }
  std::int64_t lowest = 0, highest = 0;
  for (std::size_t i = 0; i < shape_.size(); ++i) {
    if (shape_[i] == 0) return;
    const std::int64_t reach = (shape_[i] - 1) * strides_[i];
    (reach < 0 ? lowest : highest) += reach;
  }
  origin_ = -lowest;
  bytes_.assign(static_cast<std::size_t>(highest - lowest + 1) * size_of(dtype_), std::byte{0xff});
}

std::size_t HostTensor::offset(const Index& index) const {
  if (index.size() != shape_.size()) throw std::out_of_range("an index of another rank than the tensor's");
  std::int64_t at = origin_;
  for (std::size_t i = 0; i < index.size(); ++i) {
    if (index[i] < 0 || index[i] >= shape_[i]) throw std::out_of_range("an index outside of the tensor");
    at += index[i] * strides_[i];
  }
  return static_cast<std::size_t>(at) * size_of(dtype_);
}

double HostTensor::at(const Index& index) const {
  const std::byte* at = &bytes_[offset(index)];
  switch (dtype_) {
    case DType::f16: return files::float_from_f16(read<std::uint16_t>(at));
    case DType::bf16: return files::float_from_bf16(read<std::uint16_t>(at));
    case DType::f32: return read<float>(at);
    case DType::f64: return read<double>(at);
    case DType::i8: return read<std::int8_t>(at);
    case DType::u8: return read<std::uint8_t>(at);
    case DType::i16: return read<std::int16_t>(at);
    case DType::u16: return read<std::uint16_t>(at);
    case DType::i32: return read<std::int32_t>(at);
    case DType::i64: return static_cast<double>(read<std::int64_t>(at));
    case DType::boolean: return read<std::uint8_t>(at);
  }
  return 0;
}

void HostTensor::set(const Index& index, double value) {
  std::byte* at = &bytes_[offset(index)];
  switch (dtype_) {
    case DType::f16: return write_bits(at, files::f16_from_float(static_cast<float>(value)));
    case DType::bf16: return write_bits(at, files::bf16_from_float(static_cast<float>(value)));
    case DType::f32: return write<float>(at, value);
    case DType::f64: return write<double>(at, value);
    case DType::i8: return write<std::int8_t>(at, value);
    case DType::u8: return write<std::uint8_t>(at, value);
    case DType::i16: return write<std::int16_t>(at, value);
    case DType::u16: return write<std::uint16_t>(at, value);
    case DType::i32: return write<std::int32_t>(at, value);
    case DType::i64: return write<std::int64_t>(at, value);
    case DType::boolean: return write<std::uint8_t>(at, value != 0 ? 1 : 0);
  }
}

void HostTensor::each(const std::function<void(const Index&)>& visit) const {
  Index index(shape_.size());
  if (std::find(shape_.begin(), shape_.end(), 0) != shape_.end()) return;
  for (;;) {
    visit(index);
    std::size_t i = index.size();
    while (i > 0 && ++index[i - 1] == shape_[i - 1]) index[--i] = 0;
    if (i == 0) return;
  }
}

HostTensor& HostTensor::fill(const std::function<double(const Index&)>& value) {
  each([&](const Index& index) { set(index, value(index)); });
  return *this;
}

HostTensor& HostTensor::fill_random(std::mt19937& random, double low, double high) {
  std::uniform_real_distribution<double> uniform(low, high);
  return fill(
      [&](const Index&) { return is_floating(dtype_) ? uniform(random) : std::floor(uniform(random)); });
}

Tensor HostTensor::view() const {
  // The public type has one pointer for what is read and what is written.
  std::byte* data = const_cast<std::byte*>(bytes_.data());
  return {bytes_.empty() ? nullptr : data + origin_ * static_cast<std::int64_t>(size_of(dtype_)), dtype_,
          shape_, strides_};
}

double ulp(DType dtype, double x) {
  struct Format {
    int digits, lowest;
  };
  const Format f = dtype == DType::f16    ? Format{11, -24}
                   : dtype == DType::bf16 ? Format{8, -133}
                   : dtype == DType::f32  ? Format{24, -149}
                                          : Format{53, -1074};
  int exponent = 0;
  std::frexp(x, &exponent);
  return std::ldexp(1.0, x == 0 || !std::isfinite(x) ? f.lowest : std::max(exponent - f.digits, f.lowest));
}

}  // namespace vicinal::testing
