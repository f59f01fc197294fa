// Scores of a warpgroup to weights, in registers, for the two rows that a thread has in the accumulator of a
// product; its elements are i / 2 % 2 by row. Exponents are to base 2.
//
// The largest score is raised late: an exponent may exceed it by kSlack, which costs no accuracy in fp32 and
// spares most rescaling of the output (the scheme of FlashAttention-4).
#pragma once

#include "vicinal/hopper/contract.cuh"
#include "vicinal/online_softmax.cuh"
#include "vicinal/ptx/convert.cuh"
#include "vicinal/ptx/order.cuh"

namespace vicinal::hopper {

constexpr float kSlack = 8.0f;

// x[i] = of(x[i], i), as a loop over parts of the registers: what is computed seldom is to be short code,
// which compiles sooner. A part is taken from the front and put back at the end, since registers have no
// index.
template <int N, class Of>
VICINAL_DEVICE void in_parts(float (&x)[N], Of of) {
  constexpr int kPart = N % 16 == 0 ? N / 4 : N / 2;
#pragma unroll 1
  for (int first = 0; first < N; first += kPart) {
    float part[kPart];
#pragma unroll
    for (int i = 0; i < kPart; ++i) part[i] = of(x[i], first + i);
#pragma unroll
    for (int i = 0; i < N - kPart; ++i) x[i] = x[i + kPart];
#pragma unroll
    for (int i = 0; i < kPart; ++i) x[N - kPart + i] = part[i];
  }
}

class Softmax {
 public:
  // `factor`: of the scores; positive. `sink`: of the row, as a score, or -inf. `counts`: of the threads that
  // share a row one counts the sink.
  VICINAL_DEVICE void start(float factor, float sink, int r, bool counts) {
    scale = factor * kLog2E;
    largest[r] = sink == -infinity() ? -infinity() : sink * kLog2E / scale;
    sum[r] = sink != -infinity() && counts ? 1.0f : 0.0f;
  }

  // `Offset`: what the thread's scores of a row lack, in `offset`. `Parted`: columns of which parity are
  // kept, by row; what is left out costs nothing by element.
  template <bool Offset, bool Parted, int N>
  VICINAL_DEVICE void weigh(float (&scores)[N], const float (&offset)[2], const bool (&open)[2][2]) {
    float parity_top[2][2], top[2];
    maxima(scores, parity_top, [](float s) { return s; });
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if constexpr (Parted) {
#pragma unroll
        for (int e = 0; e < 2; ++e) parity_top[r][e] = open[r][e] ? parity_top[r][e] : -infinity();
      }
      top[r] = fmaxf(parity_top[r][0], parity_top[r][1]);
    }
    if constexpr (Offset) {
#pragma unroll
      for (int r = 0; r < 2; ++r) top[r] += offset[r];
    }
    over_lanes(top);
    raise_to(top);
    float shift[2][2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      shift[r][0] = Offset ? (offset[r] - finite(largest[r])) * scale : -finite(largest[r]) * scale;
      shift[r][1] = shift[r][0];
      if constexpr (Parted) {
#pragma unroll
        for (int e = 0; e < 2; ++e) shift[r][e] = open[r][e] ? shift[r][e] : -infinity();
      }
    }
#pragma unroll
    for (int i = 0; i < N; ++i) scores[i] = exp2_approx(fmaf(scores[i], scale, shift[i / 2 % 2][i % 2]));
    add(scores);
  }

  // Of dot products, all of which are kept, for a core that rises with them, is odd, and has a gain.
  template <class V, class T, int N, class Core>
  VICINAL_DEVICE void weigh_gain(float (&dots)[N], Core core) {
    float top[2];
    largest_of(dots, top, [](float s) { return fabsf(s); });
    // A choice of the whole warp: seldom the expensive way, and never both.
    const bool gentle = __all_sync(~0u, top[0] <= V::gentle && top[1] <= V::gentle);
    // The largest magnitude may serve for the largest score: where it is small, it is not so far above that
    // weights would leave the range of bf16. That of f16 they do leave.
    if (kSame<T, f16> || !gentle) {
      largest_of(dots, top, [](float s) { return s; });
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) top[r] = core(top[r]);
    raise_to(top);
    float shift[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) shift[r] = -finite(largest[r]) * scale;
    if (gentle) {
#pragma unroll
      for (int i = 0; i < N; ++i)
        dots[i] = exp2_approx(fmaf(dots[i], V::gain(dots[i] * dots[i]), shift[i / 2 % 2]));
    } else {
      in_parts(dots, [&](float s, int i) {
        return exp2_approx(fmaf(core(s), scale, i / 2 % 2 == 0 ? shift[0] : shift[1]));
      });
    }
    add(dots);
  }

  // What was summed before the last tile, on the scale of what is summed since.
  template <int N>
  VICINAL_DEVICE void rescale(float (&out)[N]) const {
    if (!raised) return;
#pragma unroll
    for (int i = 0; i < N; ++i) out[i] *= decay[i / 2 % 2];
  }

  // Of all keys: 1 / sum, or 0 where nothing was kept, and the LSE.
  VICINAL_DEVICE void finish(float (&norm)[2], float (&lse)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
      sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
      norm[r] = sum[r] == 0.0f ? 0.0f : 1.0f / sum[r];
      lse[r] = fmaf(finite(largest[r]), scale, log2f(sum[r])) * kLn2;
    }
  }

 private:
  // Of the thread's part of the rows, by row and parity of the column.
  template <int N, class Of>
  VICINAL_DEVICE static void maxima(const float (&scores)[N], float (&top)[2][2], Of of) {
    // All four side by side, and two chains of maxima for each, so that nothing waits for its neighbour.
    float chain[4] = {of(scores[0]), of(scores[1]), of(scores[2]), of(scores[3])},
          other[4] = {of(scores[4]), of(scores[5]), of(scores[6]), of(scores[7])};
#pragma unroll
    for (int i = 8; i < N; i += 4) {
      float(&longer)[4] = i % 8 == 0 ? chain : other;
#pragma unroll
      for (int n = 0; n < 4; ++n) longer[n] = fmaxf(longer[n], of(scores[i + n]));
    }
#pragma unroll
    for (int n = 0; n < 4; ++n) top[n / 2][n % 2] = fmaxf(chain[n], other[n]);
  }
  // Of the rows.
  template <int N, class Of>
  VICINAL_DEVICE static void largest_of(const float (&scores)[N], float (&top)[2], Of of) {
    float parity_top[2][2];
    maxima(scores, parity_top, of);
#pragma unroll
    for (int r = 0; r < 2; ++r) top[r] = fmaxf(parity_top[r][0], parity_top[r][1]);
    over_lanes(top);
  }

  // The four threads that share rows.
  VICINAL_DEVICE static void over_lanes(float (&top)[2]) {
#pragma unroll
    for (int lanes = 1; lanes <= 2; lanes *= 2) {
#pragma unroll
      for (int r = 0; r < 2; ++r) top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], lanes));
    }
  }

  VICINAL_DEVICE void raise_to(float (&top)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) top[r] = fmaxf(largest[r], top[r]);
    raised =
        __any_sync(~0u, (top[0] - largest[0]) * scale > kSlack || (top[1] - largest[1]) * scale > kSlack);
    if (raised) raise(top);
  }

  // Takes larger maxima. A branch of its own: the exponentials behind it then wait for the last product's
  // end, and not the maxima before it.
  VICINAL_DEVICE void raise(const float (&top)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      decay[r] = exp2_approx((largest[r] - finite(top[r])) * scale);
      largest[r] = top[r];
      sum[r] *= decay[r];
    }
    keep_branch();
  }

  template <int N>
  VICINAL_DEVICE void add(const float (&weights)[N]) {
    float total[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < N; ++i) total[i % 4] += weights[i];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += total[2 * r] + total[2 * r + 1];
      // Now, in the shadow of the exponentials, and not in the loop's last block.
      settle(sum[r]);
    }
  }

  // While every score is -inf there is no largest, and -inf - -inf would be NaN.
  VICINAL_DEVICE static float finite(float x) {
    return x == -infinity() ? 0.0f : x;
  }

  float scale;               // of the scores, to base 2
  float largest[2], sum[2];  // of the rows so far
  float decay[2];            // where `raised`, the factor of what was summed before
  bool raised;
};

}  // namespace vicinal::hopper
