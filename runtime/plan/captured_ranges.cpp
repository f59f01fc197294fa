#include "runtime/plan/captured_ranges.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <type_traits>

#include "compiler/support/check.h"
#include "runtime/host/elements.h"
#include "runtime/host/parallel.h"

namespace vicinal::plan {
namespace {

using ranges::Range;
using runtime::CapturedInput;

constexpr std::int64_t kBlock = 64;
// A box of more lines than this is answered by what the whole input holds.
constexpr std::int64_t kMaxLines = 1024;

// Least and greatest of some elements; integers and truth values are exact in double. None: low > high.
struct Extremes {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  bool nan = false;

  void include(const Extremes& other) {
    low = std::min(low, other.low);
    high = std::max(high, other.high);
    nan = nan || other.nan;
  }
};

// Of numbers without NaN, in a loop that compilers vectorise where the elements are neighbours.
template <class T>
Extremes scan_whole(const T* x, std::int64_t stride, std::int64_t count) {
  T low = x[0], high = x[0];
  const auto include = [&](T value) {
    low = value < low ? value : low;
    high = high < value ? value : high;
  };
  if (stride == 1)
    for (std::int64_t i = 1; i < count; ++i) include(x[i]);
  else
    for (std::int64_t i = 1; i < count; ++i) include(x[i * stride]);
  return {static_cast<double>(low), static_cast<double>(high), false};
}

template <class T>
Extremes scan_as(const void* data, std::int64_t offset, std::int64_t stride, std::int64_t count) {
  const T* x = static_cast<const T*>(data) + offset;
  if constexpr (std::is_integral_v<T>) return scan_whole(x, stride, count);
  T low = x[0], high = x[0];
  bool nan = x[0] != x[0];
  for (std::int64_t i = 1; i < count; ++i) {
    const T value = x[i * stride];
    low = value < low || low != low ? value : low;
    high = high < value || high != high ? value : high;
    nan = nan || value != value;
  }
  if (low != low) return {.nan = true};
  return {static_cast<double>(low), static_cast<double>(high), nan};
}

Extremes scan_any(const CapturedInput& x, std::int64_t offset, std::int64_t stride, std::int64_t count) {
  Extremes result;
  for (std::int64_t i = 0; i < count; ++i) {
    const double value = host::load_element(x.data, x.dtype, offset + i * stride);
    result.include(value == value ? Extremes{value, value, false} : Extremes{.nan = true});
  }
  return result;
}

Extremes scan(const CapturedInput& x, std::int64_t offset, std::int64_t stride, std::int64_t count) {
  switch (x.dtype) {
    case DType::i8: return scan_as<std::int8_t>(x.data, offset, stride, count);
    case DType::boolean:
    case DType::u8: return scan_as<std::uint8_t>(x.data, offset, stride, count);
    case DType::i16: return scan_as<std::int16_t>(x.data, offset, stride, count);
    case DType::u16: return scan_as<std::uint16_t>(x.data, offset, stride, count);
    case DType::i32: return scan_as<std::int32_t>(x.data, offset, stride, count);
    case DType::i64: return scan_as<std::int64_t>(x.data, offset, stride, count);
    case DType::f32: return scan_as<float>(x.data, offset, stride, count);
    default: return scan_any(x, offset, stride, count);
  }
}

int log2_floor(std::int64_t x) {
  return static_cast<int>(std::bit_width(static_cast<std::uint64_t>(x))) - 1;
}

std::int64_t elements(Range r) {
  return r.step == 0 ? 1 : (static_cast<std::int64_t>(r.high) - r.low) / r.step + 1;
}

}  // namespace

// Lines along one dimension, each with the extremes of its blocks and, level by level, of twice as many (a
// sparse table: Bender and Farach-Colton, "The LCA problem revisited", 2000).
struct CapturedRanges::Table {
  const CapturedInput& x;
  std::size_t along;  // the dimension
  std::int64_t length, blocks, lines = 1;
  int levels;
  std::vector<Extremes> extremes;  // [line][level][block]
  Extremes all;

  Table(const CapturedInput& input, std::size_t dimension, unsigned threads)
      : x(input),
        along(dimension),
        length(input.extents[dimension]),
        blocks((length + kBlock - 1) / kBlock),
        levels(log2_floor(blocks) + 1) {
    for (std::size_t i = 0; i < x.extents.size(); ++i)
      if (i != along) lines *= x.extents[i];
    extremes.resize(static_cast<std::size_t>(lines * levels * blocks));
    std::vector<Extremes> of_line(static_cast<std::size_t>(lines));
    host::parallel_for(lines, length * lines < 65536 ? 1 : threads,
                       [&](std::int64_t line) { of_line[static_cast<std::size_t>(line)] = fill(line); });
    for (const Extremes& e : of_line) all.include(e);
  }

  // The element offset of a line, its number counting the other dimensions with the last one fastest.
  std::int64_t line_offset(std::int64_t line) const {
    std::int64_t offset = 0;
    for (std::size_t i = x.extents.size(); i-- > 0;) {
      if (i == along) continue;
      offset += line % x.extents[i] * x.strides[i];
      line /= x.extents[i];
    }
    return offset;
  }

  Extremes* level(std::int64_t line, int n) { return extremes.data() + (line * levels + n) * blocks; }
  const Extremes* level(std::int64_t line, int n) const {
    return extremes.data() + (line * levels + n) * blocks;
  }

  Extremes fill(std::int64_t line) {
    const std::int64_t offset = line_offset(line), stride = x.strides[along];
    Extremes whole;
    for (std::int64_t b = 0; b < blocks; ++b) {
      const std::int64_t first = b * kBlock;
      level(line, 0)[b] = scan(x, offset + first * stride, stride, std::min(kBlock, length - first));
      whole.include(level(line, 0)[b]);
    }
    for (int n = 1; n < levels; ++n) {
      const std::int64_t half = std::int64_t{1} << (n - 1);
      for (std::int64_t b = 0; b + 2 * half <= blocks; ++b) {
        level(line, n)[b] = level(line, n - 1)[b];
        level(line, n)[b].include(level(line, n - 1)[b + half]);
      }
    }
    return whole;
  }

  // Whole blocks by the table and what is left at both ends element by element; a few that are not neighbours
  // one by one, since their blocks hold others too.
  Extremes of_line(std::int64_t line, std::int64_t offset, Range r) const {
    const std::int64_t stride = x.strides[along], end = static_cast<std::int64_t>(r.high) + 1;
    const std::int64_t first = (r.low + kBlock - 1) / kBlock, last = end / kBlock;
    if (first >= last || (r.step > 1 && elements(r) <= kBlock))
      return scan(x, offset + r.low * stride, stride * std::max<std::int64_t>(1, r.step), elements(r));
    const int n = log2_floor(last - first);
    Extremes result = level(line, n)[first];
    result.include(level(line, n)[last - (std::int64_t{1} << n)]);
    if (first * kBlock > r.low)
      result.include(scan(x, offset + r.low * stride, stride, first * kBlock - r.low));
    if (end > last * kBlock)
      result.include(scan(x, offset + last * kBlock * stride, stride, end - last * kBlock));
    return result;
  }

  Extremes of(std::span<const Range> indices) const {
    if (lines == 1) return of_line(0, 0, indices[along]);
    std::int64_t boxed = 1;
    for (std::size_t i = 0; i < indices.size(); ++i)
      if (i != along) boxed = std::min(boxed * elements(indices[i]), kMaxLines + 1);
    if (boxed > kMaxLines) return all;
    Extremes result;
    for (std::int64_t n = 0; n < boxed; ++n) {
      std::int64_t rest = n, line = 0, offset = 0;
      std::int64_t scale = 1;
      for (std::size_t i = indices.size(); i-- > 0;) {
        if (i == along) continue;
        const std::int64_t count = elements(indices[i]);
        const std::int64_t index = indices[i].low + rest % count * indices[i].step;
        rest /= count;
        line += index * scale;
        scale *= x.extents[i];
        offset += index * x.strides[i];
      }
      result.include(of_line(line, offset, indices[along]));
    }
    return result;
  }
};

struct CapturedRanges::Source {
  const CapturedInput& x;
  // An input may be left out where no result depends on it; it is evaluated all the same, as zeros.
  bool left_out;
  std::unique_ptr<const Table> table;  // null where no one asks about ranges

  // Indices as a read has them. False: several.
  bool clamp(std::span<const Range> indices, Range* out) const {
    bool one = true;
    for (std::size_t i = 0; i < indices.size(); ++i) {
      const auto last = static_cast<int>(x.extents[i] - 1);
      out[i] = indices[i];
      if (out[i].low < 0 || out[i].high > last)
        out[i] = ranges::min_i(ranges::max_i(out[i], ranges::point(0)), ranges::point(last));
      one = one && ranges::is_point(out[i]);
    }
    return one;
  }

  std::int64_t offset(const Range* indices, std::size_t count) const {
    std::int64_t offset = 0;
    for (std::size_t i = 0; i < count; ++i) offset += indices[i].low * x.strides[i];
    return offset;
  }

  Extremes extremes(std::span<const Range> indices) const {
    if (left_out) return {0, 0, false};
    Range at[kMaxIndices];
    if (clamp(indices, at)) return scan(x, offset(at, indices.size()), 1, 1);
    VICINAL_ASSERT(table != nullptr, "an input is asked about by ranges that nobody announced");
    return table->of({at, indices.size()});
  }
};

CapturedRanges::CapturedRanges(const ir::Module& module, const runtime::Problem& problem,
                               const std::vector<analysis::RangedDimensions>& ranged, unsigned threads) {
  for (std::size_t i = 0; i < module.inputs.size(); ++i) {
    const CapturedInput& x = problem.inputs[i];
    const bool left_out = x.data == nullptr || std::ranges::find(x.extents, 0) != x.extents.end();
    sources_.push_back({x, left_out, nullptr});
    if (!ranged[i].any() || left_out) continue;
    sources_.back().table =
        std::make_unique<const Table>(x, static_cast<std::size_t>(ranged[i].along()), threads);
  }
}
CapturedRanges::~CapturedRanges() = default;

namespace {

// Integers outside 32 bits wrap, as every backend reads them.
int wrapped(double x) {
  return static_cast<int>(static_cast<std::uint32_t>(static_cast<std::int64_t>(x)));
}

}  // namespace

Range CapturedRanges::integers(std::uint32_t input, std::span<const Range> indices) const {
  const Extremes e = sources_[input].extremes(indices);
  constexpr double lowest = std::numeric_limits<int>::min(), highest = std::numeric_limits<int>::max();
  if (e.low == e.high) return ranges::point(wrapped(e.low));
  if (e.low < lowest || e.high > highest) return ranges::any_int();
  return ranges::make_range(static_cast<int>(e.low), static_cast<int>(e.high), 1);
}

ranges::RealRange CapturedRanges::reals(std::uint32_t input, std::span<const Range> indices) const {
  const Extremes e = sources_[input].extremes(indices);
  if (e.low > e.high) return ranges::any_real();
  return {static_cast<float>(e.low), static_cast<float>(e.high), e.nan};
}

ranges::Truth CapturedRanges::truths(std::uint32_t input, std::span<const Range> indices) const {
  const Extremes e = sources_[input].extremes(indices);
  // Any element but 0 is true; below and above 0 there may be a 0 between.
  return {e.low != 0 || e.high != 0 || e.nan, e.low <= 0 && e.high >= 0};
}

ranges::RealRange CapturedRanges::dot(std::uint32_t first, std::span<const Range> first_indices,
                                      std::uint32_t second, std::span<const Range> second_indices) const {
  const Source &x = sources_[first], &y = sources_[second];
  if (x.left_out || y.left_out) return ranges::point(0.0f);
  Range x_at[kMaxIndices], y_at[kMaxIndices];
  if (!x.clamp(first_indices, x_at) || !y.clamp(second_indices, y_at)) return ranges::any_real();
  const std::int64_t x_offset = x.offset(x_at, first_indices.size()),
                     y_offset = y.offset(y_at, second_indices.size());
  float sum = 0;
  for (std::int64_t i = 0; i < x.x.extents.back(); ++i)
    sum += static_cast<float>(host::load_element(x.x.data, x.x.dtype, x_offset + i * x.x.strides.back())) *
           static_cast<float>(host::load_element(y.x.data, y.x.dtype, y_offset + i * y.x.strides.back()));
  return ranges::point(sum);
}

}  // namespace vicinal::plan
