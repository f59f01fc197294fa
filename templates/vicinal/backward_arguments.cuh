// What the backward kernels are launched with, and the seam to a variant's derivatives.
#pragma once

#include "vicinal/contract.cuh"

namespace vicinal {

// Gradients of captured tensors and params are summed in one list of fp32 numbers, each tensor's elements in
// C order from `begin` on; those that are summed in place have none there, and are 0 to begin with.
struct CapturedGradient {
  float* data;  // where the sum goes, or, in forward mode, the tangent; null where nobody asks
  i64 begin, count;
};

// Rows are numbered [batch][head][query]. The gradient of out, d_out, is that of what stands before the
// output expression: the caller's tensor, or, where there is such an expression, what the kernel `rows` made
// of it. In forward mode d_q and its neighbours are tangents that are given, d_out and d_lse those wanted.
template <int Rank, class Parameters, int Captured>
struct BackwardArguments : ForwardArguments<Rank, Parameters> {
  TensorArgument<Rank> d_out, d_lse;                             // d_lse has no data where it is 0
  TensorArgument<Rank> given_d_out;                              // as the caller gave it
  TensorArgument<Rank> d_q, d_k, d_v, d_context_k, d_context_v;  // no data: not wanted
  const u32* only_if;   // of what other kernels have computed: nothing is to be done where it points to 0
  i64 key_rows;         // tiles of the grid's keys
  float* d_rows;        // [row][value dim]: d_out through the output expression
  float* row_terms;     // [row]: d_lse - <d_out, out>
  float* partial_sums;  // [block][element]: of the list of captured gradients
  i64 captured_elements;
  i64 partial_blocks;
  CapturedGradient captured[Captured == 0 ? 1 : Captured];
};

// Which pairs of a batch and head read one element of a tensor, by which their shares are added up
// (tile/captured_sums.cuh).
enum class Adding {
  head,      // all of them
  row,       // those of a query
  column,    // those of a key
  distance,  // those whose keys are equally far from their queries, along every axis
  pair,      // no two
  in_place,  // no two, and the tensor is read nowhere else: its gradient itself holds the sums
  ordered,   // not to be told
};

// A place where a learnable tensor or param is read. In a dot() a row of channels is.
struct Site {
  int slot;  // among the captured
  Adding adding;
  bool dot;
};
template <int N>
struct Sites {
  static constexpr int count = N;
  Site at[N == 0 ? 1 : N];
};

// Of what a site is a part.
enum class Root { score, context_score, scale, sink, output };

// The derivatives that an emitted variant adds to its expressions, and sites<Root>(). Of site N
//
//   site<Root, N>(a, q, k, score, out, lse, element, slope)  has the element of its tensor and the slope
//   there channels<Root, N>(a)         where it is in a dot(): as many elements from there on, factor<Root,
//   N>(a, q, k, c)  each with a slope of its own: that one times this
//
// which look at what their root may read.
template <class V>
concept DifferentiatedVariant = AttentionVariant<V> &&
    requires(const typename V::Arguments& a, const Query<V::rank>& q, const Key<V::rank>& k, float s) {
  { V::template d_score<false>(a, q, k, s) } -> Same<float>;  // of the score by the scaled dot product
  { V::d_output_out(a, q, s, s) } -> Same<float>;             // of the output by out and lse
  { V::d_output_lse(a, q, s, s) } -> Same<float>;
  V::captured;  // learnable tensors and params
  V::template sites<Root::score>();
};

template <class V, Root In>
constexpr int kSiteCount = V::template sites<In>().count;
template <class V, Root In, int N>
constexpr Site kSite = V::template sites<In>().at[N];

template <class V, Root In>
VICINAL_HD constexpr bool sums_in_place() {
  for (int n = 0; n < kSiteCount<V, In>; ++n)
    if (V::template sites<In>().at[n].adding == Adding::in_place) return true;
  return false;
}

}  // namespace vicinal
