// Little-endian integers and length-prefixed strings, as the cache's files hold them.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace vicinal::cache {

template <std::unsigned_integral T>
void put(std::string& bytes, T value) {
  for (unsigned i = 0; i < sizeof(T); ++i) bytes += static_cast<char>(value >> (8 * i));
}

inline void put_string(std::string& bytes, std::string_view value) {
  put<std::uint64_t>(bytes, value.size());
  bytes += value;
}

// Takes values off the front of bytes that nobody vouches for.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : rest_(bytes) {}

  template <std::unsigned_integral T>
  std::optional<T> take() {
    if (rest_.size() < sizeof(T)) return std::nullopt;
    T value = 0;
    for (unsigned i = 0; i < sizeof(T); ++i) {
      value = static_cast<T>(value | static_cast<T>(static_cast<unsigned char>(rest_[i])) << (8 * i));
    }
    rest_.remove_prefix(sizeof(T));
    return value;
  }

  std::optional<std::string_view> take_bytes(std::uint64_t size) {
    if (rest_.size() < size) return std::nullopt;
    const std::string_view bytes = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return bytes;
  }

  std::optional<std::string_view> take_string() {
    const auto size = take<std::uint64_t>();
    return size ? take_bytes(*size) : std::nullopt;
  }

  bool empty() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

}  // namespace vicinal::cache
