// What captured inputs hold over ranges of indices, on the device: tables of the least and greatest elements
// of blocks, filled by one kernel and asked by the next.
#pragma once

#include "vicinal/captured.cuh"
#include "vicinal/ranges.cuh"

namespace vicinal::planning {

using ranges::Range;
using ranges::RealRange;
using ranges::Truth;

constexpr int kBlock = 32;          // elements, and blocks of a stretch
constexpr int kMaxLookups = 64;     // a range of more stretches than this is answered by "anything"
constexpr int kMaxLines = 128;      // as is a box of more lines
constexpr int kTableThreads = 256;  // of the blocks that fill tables

// Lines along one dimension, the other dimensions numbered with the last one fastest: what every block of a
// line holds, and every stretch of blocks. A tile's range is as long as some blocks, and 32 tiles' as some
// stretches.
template <class Set>
struct InputTable {
  Set* sets;  // [line]: blocks, then stretches
  i64 lines, blocks, stretches;

  VICINAL_DEVICE Set& block(i64 line, int n) const { return sets[line * (blocks + stretches) + n]; }
  VICINAL_DEVICE Set& stretch(i64 line, int n) const { return block(line, static_cast<int>(blocks) + n); }
};

// The smallest set of its kind, without a step, that holds both.
VICINAL_DEVICE Range hull(Range x, Range y) {
  const int low = min(x.low, y.low), high = max(x.high, y.high);
  return {low, high, low == high ? 0u : 1u};
}
VICINAL_DEVICE RealRange hull(RealRange x, RealRange y) {
  return join(x, y);
}
VICINAL_DEVICE Truth hull(Truth x, Truth y) {
  return join(x, y);
}

// One element as a set; the second argument names the kind.
template <class T>
VICINAL_DEVICE Range element(T x, const Range*) {
  return ranges::point(static_cast<int>(x));
}
template <class T>
VICINAL_DEVICE RealRange element(T x, const RealRange*) {
  return ranges::point(element_float(x));
}
template <class T>
VICINAL_DEVICE Truth element(T x, const Truth*) {
  return ranges::point(x != 0);
}
VICINAL_DEVICE Range anything(const Range*) {
  return ranges::any_int();
}
VICINAL_DEVICE RealRange anything(const RealRange*) {
  return ranges::any_real();
}
VICINAL_DEVICE Truth anything(const Truth*) {
  return ranges::any_truth();
}
template <class Set>
constexpr const Set* kKind = nullptr;

// `count` elements from `offset` on, at least one.
template <class Set, class T>
VICINAL_DEVICE Set scan(const T* data, i64 offset, i64 stride, int count) {
  Set set = element(data[offset], kKind<Set>);
#pragma unroll 4
  for (int i = 1; i < count; ++i) set = hull(set, element(data[offset + i * stride], kKind<Set>));
  return set;
}

// Where a line starts, in elements.
template <int Along, class T, int Rank>
VICINAL_DEVICE i64 line_offset(const InputArgument<T, Rank>& x, i64 line) {
  i64 offset = 0;
#pragma unroll
  for (int i = Rank - 1; i >= 0; --i) {
    if (i == Along) continue;
    offset += line % x.extent[i] * x.stride[i];
    line /= x.extent[i];
  }
  return offset;
}

VICINAL_DEVICE int of_lane(int x, int lane) {
  return __shfl_xor_sync(~0u, x, lane);
}
VICINAL_DEVICE Range of_lane(Range x, int lane) {
  return {of_lane(x.low, lane), of_lane(x.high, lane),
          static_cast<u32>(of_lane(static_cast<int>(x.step), lane))};
}
VICINAL_DEVICE RealRange of_lane(RealRange x, int lane) {
  return {__shfl_xor_sync(~0u, x.low, lane), __shfl_xor_sync(~0u, x.high, lane), of_lane(x.nan, lane) != 0};
}
VICINAL_DEVICE Truth of_lane(Truth x, int lane) {
  return {of_lane(x.can_hold, lane) != 0, of_lane(x.can_fail, lane) != 0};
}

// By blocks of kTableThreads threads: a warp a stretch, a block of elements at a time.
template <int Along, class Set, class T, int Rank>
VICINAL_DEVICE void fill(const InputArgument<T, Rank>& x, const InputTable<Set>& table) {
  const int length = static_cast<int>(x.extent[Along]), lane = static_cast<int>(threadIdx.x) % kBlock;
  constexpr int kWarps = kTableThreads / kBlock;
  for (i64 warp = static_cast<i64>(blockIdx.x) * kWarps + threadIdx.x / kBlock;
       warp < table.lines * table.stretches; warp += static_cast<i64>(gridDim.x) * kWarps) {
    const i64 line = warp / table.stretches, offset = line_offset<Along>(x, line);
    const int stretch = static_cast<int>(warp - line * table.stretches);
    Set all;
#pragma unroll 8
    for (int i = 0; i < kBlock; ++i) {
      const int b = stretch * kBlock + i;
      // Past the end the last element again, which is of this stretch.
      Set set = element(x.data[offset + min(b * kBlock + lane, length - 1) * x.stride[Along]], kKind<Set>);
#pragma unroll
      for (int lanes = kBlock / 2; lanes > 0; lanes /= 2) set = hull(set, of_lane(set, lanes));
      if (lane == 0 && b < table.blocks) table.block(line, b) = set;
      all = i == 0 ? set : hull(all, set);
    }
    if (lane == 0) table.stretch(line, stretch) = all;
  }
}

// What a line holds over a range of its elements: elements up to a block, blocks up to a stretch, stretches,
// and down again.
template <class Set, class T>
VICINAL_DEVICE Set over_line(const T* data, i64 offset, i64 stride, const InputTable<Set>& table, i64 line,
                             Range r) {
  const u32 count = r.step == 0 ? 1 : ranges::distance(r.low, r.high) / r.step + 1;
  if (count <= kBlock || (r.step > 1 && count <= 2 * kBlock))
    return scan<Set>(data, offset + r.low * stride, r.step == 0 ? stride : stride * r.step,
                     static_cast<int>(count));
  const int end = r.high + 1;
  int at = r.low;
  Set set = element(data[offset + at * stride], kKind<Set>);
  for (; at % kBlock != 0 && at < end; ++at) set = hull(set, element(data[offset + at * stride], kKind<Set>));
  int block = at / kBlock;
  const int last = max(block, end / kBlock);
  for (; block % kBlock != 0 && block < last; ++block) set = hull(set, table.block(line, block));
  int stretch = block / kBlock;
  const int last_stretch = max(stretch, last / kBlock);
  if (last_stretch - stretch > kMaxLookups) return anything(kKind<Set>);
  for (; block % kBlock == 0 && stretch < last_stretch; ++stretch)
    set = hull(set, table.stretch(line, stretch));
  for (block = max(block, last_stretch * kBlock); block < last; ++block)
    set = hull(set, table.block(line, block));
  for (at = max(at, last * kBlock); at < end; ++at)
    set = hull(set, element(data[offset + at * stride], kKind<Set>));
  return set;
}

VICINAL_DEVICE Range clamped(Range index, i64 extent) {
  return ranges::min_i(ranges::max_i(index, ranges::point(0)), ranges::point(static_cast<int>(extent) - 1));
}

// What an input holds where each index lies in a range; indices are clamped as a read's are. An input that is
// left out, since nothing depends on it, reads as zeros.
template <class Set, class T, int Rank, class... Indices>
VICINAL_DEVICE Set read(const InputArgument<T, Rank>& x, Indices... indices) {
  const Range index[Rank == 0 ? 1 : Rank] = {indices...};
  i64 offset = 0;
  bool there = x.data != nullptr;
#pragma unroll
  for (int i = 0; i < Rank; ++i) {
    there = there && x.extent[i] > 0;
    offset += clamp_index(index[i].low, x.extent[i]) * x.stride[i];
  }
  return there ? element(x.data[offset], kKind<Set>) : element(0.0f, kKind<Set>);
}
// Not inlined: a mask reads in several places, and this is long.
template <int Along, class Set, class T, int Rank, class... Indices>
__device__ __noinline__ Set read(const InputArgument<T, Rank>& x, const InputTable<Set>& table,
                                 Indices... indices) {
  Range index[Rank] = {indices...};
  bool there = x.data != nullptr, points = true;
  u32 lines = 1;
#pragma unroll
  for (int i = 0; i < Rank; ++i) {
    there = there && x.extent[i] > 0;
    index[i] = clamped(index[i], x.extent[i]);
    points = points && is_point(index[i]);
    if (i == Along || is_point(index[i])) continue;
    const u32 count = ranges::distance(index[i].low, index[i].high) / index[i].step + 1;
    lines = min(count, kMaxLines + 1) * lines;
    lines = min(lines, kMaxLines + 1);
  }
  if (!there) return element(0.0f, kKind<Set>);
  if (points) return read<Set>(x, indices...);
  if (lines > kMaxLines) return anything(kKind<Set>);
  Set set;
  for (u32 n = 0; n < lines; ++n) {
    u32 rest = n;
    i64 line = 0, scale = 1, offset = 0;
#pragma unroll
    for (int i = Rank - 1; i >= 0; --i) {
      if (i == Along) continue;
      const u32 count =
          is_point(index[i]) ? 1 : ranges::distance(index[i].low, index[i].high) / index[i].step + 1;
      const int at = index[i].low + static_cast<int>(rest % count * index[i].step);
      rest /= count;
      line += at * scale;
      scale *= x.extent[i];
      offset += at * x.stride[i];
    }
    const Set one = over_line(x.data, offset, x.stride[Along], table, line, index[Along]);
    set = n == 0 ? one : hull(set, one);
  }
  return set;
}

}  // namespace vicinal::planning
