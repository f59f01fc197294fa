// What the Hopper kernel asks of an emitted variant beyond contract.cuh, and what it is launched with.
//
// A variant's expressions arrive taken apart by where they are computed, what is the same for a row or a
// column under a name in Row or Column:
//
//   score = factor * core + slope * (k - q) + shift
//   mask  = begin <= k < end, and keeps()
//
// with a factor above 0 and a slope that depend on batch and head, and a shift, a begin and an end of a row.
// So a score which is the scaled dot product costs one multiply-add per pair, a slope one more, a triangular
// mask a few bit operations, and tiles inside of the limits know nothing of a mask. Slopes and limits are of
// sequences without dilation, where keys side by side have positions side by side.
#pragma once

#include "vicinal/contract.cuh"
#include "vicinal/ptx/tensor_copy.cuh"

namespace vicinal::hopper {

// Keys [begin, end) by their positions.
using KeyLimits = KeyRange;

// Keys of a box of the grid, as positions of their dilation groups.
template <int Rank>
struct KeyRanges {
  KeyRange axis[Rank];
};

// Limits as a mask gives them, in whole numbers that need not be positions.
struct WideLimits {
  i64 begin = 0, end = 2147483647;
  bool any = true;

  VICINAL_DEVICE void from(i64 key) { begin = key > begin ? key : begin; }
  VICINAL_DEVICE void before(i64 key) { end = key < end ? key : end; }
  // A condition of the row, without which it keeps nothing.
  VICINAL_DEVICE void only_if(bool holds) { any = any && holds; }
  VICINAL_DEVICE KeyLimits narrow() const {
    if (!any || begin >= end) return {0, 0};
    return {static_cast<int>(begin), static_cast<int>(end)};
  }
};

template <class V>
concept Variant = AttentionVariant<V> &&
    requires(const typename V::Arguments& a, const Query<V::rank>& q, const Key<V::rank>& k,
             const typename V::Row& row, const typename V::Column& column, float s) {
  V::has_core;           // core() is not its score
  V::has_slope;          // slope() is not always 0
  V::has_shift;          // shift() is not always 0
  V::has_limits;         // limits() leaves keys out
  V::has_keeps;          // keeps() is not always true of the grid's keys
  V::has_context_keeps;  // nor of the context's
  V::simple_keeps;       // keeps() of the grid's keys is a few instructions
  V::has_gain;           // core() is an odd function of the dot product that rises, and where
                         //   |s| <= gentle the exponent, factor * core(s) in base 2, is s * gain(s * s)
  V::dilated;            // some axis has a dilation
  V::has_columns;        // column() has something to tell: it is staged through shared memory
  V::has_score_columns;  // also to core()
  { V::factor(a, q) } -> Same<float>;
  { V::slope(a, q) } -> Same<float>;
  { V::shift(a, q) } -> Same<float>;
  { V::gain(s) } -> Same<float>;
  { V::limits(a, q) } -> Same<KeyLimits>;
  { V::row(a, q) } -> Same<typename V::Row>;  // once per query
  {
    V::column(a, q, k)
    } -> Same<typename V::Column>;  // once per key of a tile, of the grid's; reads b and heads of q
  { V::template core<false>(a, row, column, k, s) } -> Same<float>;  // s is the dot product, not scaled
  { V::template keeps<false>(a, row, column, k) } -> Same<bool>;
};

// Boxes of 64 channels and of the tokens that one copy brings; the output's has the 64 tokens of a warpgroup.
struct TensorMaps {
  TensorMap q, k, v, context_k, context_v, out;
};

// What a head and a batch add to the coordinates of a tensor with three token axes.
struct HeadSteps {
  i64 channel;      // by head
  i64 head, batch;  // along the last dimension
};

// Of a box whose tokens are columns: those from one position along an axis to the next; of the axes but the
// first, a word with the lowest bit of every stretch of the axis, and 2^16 / extent rounded up, where the
// last axis counts by eights.
template <int Rank>
struct ColumnArguments {
  i64 step[Rank], repeat[Rank], inverse[Rank];
};

// What follows from the extents of tiles and tensors, so that no thread has to find it out.
template <int Rank>
struct BoxArguments {
  HeadSteps q, k, v, out;
  i64 q_copy[Rank], k_copy[Rank];  // tokens that one copy brings, along each axis
  ColumnArguments<Rank> columns;   // of a tile of keys
};

template <class Forward>
struct LaunchArguments;

template <int Rank, class Parameters>
struct LaunchArguments<ForwardArguments<Rank, Parameters>> {
  TensorMaps maps;
  // Counts the tiles of queries that were taken, and the blocks that are done; both 0 between launches. Null:
  // block i takes every gridDim.x-th tile, from the i-th on.
  u32* counters;
  i64 section;  // heads whose tiles alternate, so that their keys and values share the L2 cache
  BoxArguments<Rank> boxes;
  ForwardArguments<Rank, Parameters> forward;
};

}  // namespace vicinal::hopper
