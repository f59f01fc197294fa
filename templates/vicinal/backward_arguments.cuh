// What the backward kernels are launched with, and the seam to a variant's derivatives.
#pragma once

#include "vicinal/contract.cuh"

namespace vicinal {

// Gradients of captured tensors and params are summed in one list of fp32 numbers, each tensor's elements in
// C order from `begin` on.
struct CapturedGradient {
  float* data;  // where the sum goes; null where nobody wants it
  i64 begin, count;
};

// Rows are numbered [batch][head][query]. The gradient of out, d_out, is that of what stands before the
// output expression: the caller's tensor, or, where there is such an expression, what the kernel `rows` made
// of it.
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

// The derivatives that an emitted variant adds to its expressions. `Site` numbers the places where a
// learnable tensor or param is read: in scores, by kind of key; and in what a row has (scale, sink, output).
template <class V>
concept DifferentiatedVariant = AttentionVariant<V> &&
    requires(const typename V::Arguments& a, const Query<V::rank>& q, const Key<V::rank>& k, float s) {
  { V::template d_score<false>(a, q, k, s) } -> Same<float>;  // of the score by the scaled dot product
  { V::d_output_out(a, q, s, s) } -> Same<float>;             // of the output by out and lse
  { V::d_output_lse(a, q, s, s) } -> Same<float>;
  V::captured;  // learnable tensors and params
  V::template score_sites<false>;
  V::scale_sites;
  V::sink_sites;
  V::output_sites;
};

}  // namespace vicinal
