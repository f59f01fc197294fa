// Where a token stands: from its index in a shard to its coordinates, its position and its element offset.
//
// A shard is a box of the whole grid. Tensors are local: their element (0, 0, ...) is the token at the
// shard's origin. Coordinates and positions are global, since that is what a spec speaks about.
#pragma once

#include "vicinal/contract.cuh"

namespace vicinal {

// Below 2^31, as the tokens of every grid are.
template <int Rank>
VICINAL_DEVICE int token_count(const GridAxis (&axis)[Rank]) {
  int count = 1;
#pragma unroll
  for (int i = 0; i < Rank; ++i) count *= static_cast<int>(axis[i].local);
  return count;
}

// A token by its coordinates inside the shard.
template <int Rank>
struct Token {
  int local[Rank];
};

template <int Rank>
VICINAL_DEVICE Token<Rank> token_at(const GridAxis (&axis)[Rank], int index) {
  Token<Rank> token;
#pragma unroll
  for (int i = Rank - 1; i > 0; --i) {
    const int extent = static_cast<int>(axis[i].local);
    token.local[i] = index % extent;
    index /= extent;
  }
  token.local[0] = index;
  return token;
}

template <int Rank>
VICINAL_DEVICE i64 token_offset(const TensorArgument<Rank>& tensor, const Token<Rank>& token) {
  i64 offset = 0;
#pragma unroll
  for (int i = 0; i < Rank; ++i) offset += token.local[i] * tensor.axis[i];
  return offset;
}

// Writes the global coordinates and returns the flattened global position.
template <int Rank>
VICINAL_DEVICE int place(const GridAxis (&axis)[Rank], const Token<Rank>& token, int (&coordinate)[Rank]) {
  int position = 0;
#pragma unroll
  for (int i = 0; i < Rank; ++i) {
    coordinate[i] = token.local[i] + static_cast<int>(axis[i].origin);
    position = position * static_cast<int>(axis[i].extent) + coordinate[i];
  }
  return position;
}

// Where a query stands; its batch and heads are the caller's.
template <class V>
VICINAL_DEVICE void place_query(const typename V::Arguments& a, const Token<V::rank>& token,
                                Query<V::rank>& q) {
  q.index = place(a.q_axis, token, q.coordinate);
  q.position = q.index + (V::align_end ? static_cast<int>(a.keys - a.tokens) : 0);
}

template <class V>
VICINAL_DEVICE Query<V::rank> query_of(const typename V::Arguments& a, int b, int h,
                                       const Token<V::rank>& token) {
  Query<V::rank> q;
  q.b = b;
  q.h = h;
  q.kv_h = h / (static_cast<int>(a.heads) / static_cast<int>(a.kv_heads));
  place_query<V>(a, token, q);
  return q;
}

// The offset of a query in any tensor with the queries' tokens.
template <class V>
VICINAL_DEVICE i64 query_offset(const typename V::Arguments& a, const TensorArgument<V::rank>& tensor,
                                const Query<V::rank>& q) {
  i64 offset = q.b * tensor.batch + q.h * tensor.head;
#pragma unroll
  for (int i = 0; i < V::rank; ++i)
    offset += (q.coordinate[i] - static_cast<int>(a.q_axis[i].origin)) * tensor.axis[i];
  return offset;
}

// The number of a query's row.
template <class V>
VICINAL_DEVICE i64 row_number(const typename V::Arguments& a, const Query<V::rank>& q) {
  i64 number = q.b * a.heads + q.h;
#pragma unroll
  for (int i = 0; i < V::rank; ++i)
    number = number * a.q_axis[i].local + (q.coordinate[i] - static_cast<int>(a.q_axis[i].origin));
  return number;
}

template <class V>
VICINAL_DEVICE Key<V::rank> key_of(const typename V::Arguments& a, const Token<V::rank>& token) {
  Key<V::rank> k;
  k.position = place(a.k_axis, token, k.coordinate);
  return k;
}

template <class V>
VICINAL_DEVICE Key<V::rank> context_key(int index) {
  Key<V::rank> k = {};
  k.position = index;
  return k;
}

// The ranges that a query sees along each axis, and whether a key lies in all of them.
template <class V>
struct Reach {
  KeyRange range[V::rank];

  VICINAL_DEVICE void start(const typename V::Arguments& a, const Query<V::rank>& q) {
#pragma unroll
    for (int i = 0; i < V::rank; ++i) range[i] = neighborhood(V::axis(a, i), q.coordinate[i]);
  }

  VICINAL_DEVICE bool holds(const typename V::Arguments& a, const Query<V::rank>& q,
                            const Key<V::rank>& k) const {
    bool inside = true;
#pragma unroll
    for (int i = 0; i < V::rank; ++i) {
      inside = inside && contains(V::axis(a, i), range[i], q.coordinate[i], k.coordinate[i]);
    }
    return inside;
  }
};

}  // namespace vicinal
