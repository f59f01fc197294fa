// Element types of tensors, on file and in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace vicinal {

enum class DType : std::uint8_t { f16, bf16, f32, f64, i8, u8, i16, u16, i32, i64, boolean };

inline constexpr struct {
  DType dtype;
  std::string_view name;
  std::size_t size;
} kDTypes[] = {
    {DType::f16, "f16", 2}, {DType::bf16, "bf16", 2}, {DType::f32, "f32", 4},      {DType::f64, "f64", 8},
    {DType::i8, "i8", 1},   {DType::u8, "u8", 1},     {DType::i16, "i16", 2},      {DType::u16, "u16", 2},
    {DType::i32, "i32", 4}, {DType::i64, "i64", 8},   {DType::boolean, "bool", 1},
};

constexpr std::string_view name_of(DType d) {
  return kDTypes[static_cast<int>(d)].name;
}
constexpr std::size_t size_of(DType d) {
  return kDTypes[static_cast<int>(d)].size;
}
constexpr bool is_floating(DType d) {
  return d <= DType::f64;
}
constexpr bool is_integer(DType d) {
  return d >= DType::i8 && d <= DType::i64;
}

// How fp32 matrix products are computed: as exactly as in fp32, or from factors rounded to the 11 bits of
// tf32, which is faster.
enum class Precision : std::uint8_t { ieee, tf32 };
constexpr std::string_view name_of(Precision p) {
  return p == Precision::ieee ? "ieee" : "tf32";
}

inline constexpr DType f16 = DType::f16, bf16 = DType::bf16, f32 = DType::f32, f64 = DType::f64;

}  // namespace vicinal
