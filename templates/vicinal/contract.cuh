// The seam between emitted and written code: what an emitted `Variant` provides, and what it is handed.
#pragma once

#include "vicinal/arguments.cuh"
#include "vicinal/geometry.cuh"

namespace vicinal {

// NVRTC has no <concepts>.
template <class A, class B>
constexpr bool kSame = false;
template <class A>
constexpr bool kSame<A, A> = true;
template <class A, class B>
concept Same = kSame<A, B>;

enum class Normalize { softmax, sigmoid, none };

// One query row. Positions and coordinates are those of the whole grid.
template <int Rank>
struct Query {
  int b, h, kv_h;
  int position;  // `q` of the language: flattened, shifted by keys - tokens under align = end
  int index;     // `q.index`: flattened, never shifted
  int coordinate[Rank];
};

// One key. A context key has only its position, 0 .. context-1.
template <int Rank>
struct Key {
  int position;
  int coordinate[Rank];
};

// A variant is stateless; everything it reads is in the arguments. `Context` says at compile time whether the
// key is a context key, so that a branch on k.context costs nothing.
template <class V>
concept AttentionVariant = requires(const typename V::Arguments& a, const Query<V::rank>& q,
                                    const Key<V::rank>& k, float s) {
  { V::normalize } -> Same<const Normalize&>;
  V::query_l2norm;  // divide by max(|Q|, 1e-12)
  V::key_l2norm;    // divide by max(|K|, 1e-12)
  V::has_context;   // context keys follow the grid's keys
  V::has_mask;      // mask() is not always true
  V::has_sink;      // sink() adds exp(sink) to the denominator
  V::has_output;    // output() maps every output element
  V::align_end;     // positions of queries are shifted by keys - tokens
  V::neighborhood;  // some axis has a window, a dilation or causality
  { V::axis(a, 0) } -> Same<Axis>;
  { V::scale(a, q) } -> Same<float>;                        // may read b, h, kv_h
  { V::sink(a, q) } -> Same<float>;                         // may read b, h, kv_h
  { V::template mask<false>(a, q, k) } -> Same<bool>;       // exact: fp32, never contracted
  { V::template score<false>(a, q, k, s) } -> Same<float>;  // s is the scaled dot product
  { V::output(a, q, s, s) } -> Same<float>;                 // (out, lse) of one element
};

}  // namespace vicinal
