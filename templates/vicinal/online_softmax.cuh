// From scores to weights, one row at a time and one tile of keys after the other.
//
// Softmax needs the largest score before its first weight. The online form keeps the largest score so far and
// weighs against it; a larger one arriving later rescales what is accumulated (Milakov and Gimelshein,
// "Online normalizer calculation for softmax", 2018). Sigmoid and none weigh each score alone; they share the
// interface, so that a kernel is written once.
//
// A pair that is not kept has the score -inf and gets the weight 0. NaN scores are kept: fmaxf passes over
// them, so they never become the maximum, and their weight is NaN.
#pragma once

#include "vicinal/contract.cuh"
#include "vicinal/ptx/math.cuh"

namespace vicinal {

VICINAL_DEVICE float infinity() {
  return __uint_as_float(0x7f800000);
}

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// Through the base-2 units. The difference of two scores is taken before the change of base,
// where it is exact or nearly so.
VICINAL_DEVICE float natural_exp(float x) {
  return exp2_approx(x * kLog2E);
}
VICINAL_DEVICE float natural_log(float x) {
  return log2f(x) * kLn2;
}

// Binary: scores are exponents of 2 rather than of e.
template <Normalize N, bool Binary = false>
struct RowWeights {
  VICINAL_DEVICE void start(float, bool) {}
  VICINAL_DEVICE bool exceeded(float, float) const { return false; }
  VICINAL_DEVICE float raise(float) { return 1.0f; }
  VICINAL_DEVICE float weigh(float score) {
    if (score == -infinity()) return 0.0f;
    return N == Normalize::sigmoid ? 1.0f / (1.0f + natural_exp(-score)) : score;
  }
  VICINAL_DEVICE float total() const { return 1.0f; }
  VICINAL_DEVICE float norm(float) const { return 1.0f; }
  VICINAL_DEVICE float lse(float) const { return 0.0f; }
};

template <bool Binary>
struct RowWeights<Normalize::softmax, Binary> {
  float largest;  // score so far, the sink's included; or one that no score exceeds by much
  float sum;      // of the weights that went through this object

  // The sink is a score without a value. Of the objects that share a row exactly one counts it.
  VICINAL_DEVICE void start(float sink, bool counts) {
    largest = sink;
    sum = counts && sink != -infinity() ? 1.0f : 0.0f;
  }

  // Whether there has to be a larger maximum, if a score may exceed it by so much.
  VICINAL_DEVICE bool exceeded(float score, float slack) const { return score > largest + slack; }

  // Takes a larger maximum; returns the factor for everything accumulated so far.
  VICINAL_DEVICE float raise(float score) {
    const float before = largest;
    largest = fmaxf(largest, score);
    const float factor = power(before - base());
    sum *= factor;
    return factor;
  }

  VICINAL_DEVICE float weigh(float score) {
    const float weight = power(score - base());
    sum += weight;
    return weight;
  }
  // Of the score x * factor, in one operation and with one rounding.
  VICINAL_DEVICE float weigh(float x, float factor) {
    const float weight = power(fmaf(x, factor, -base()));
    sum += weight;
    return weight;
  }

  // Of the row: `total` is the sum over the objects that share it. A row that keeps nothing has the LSE of
  // its sink, and its accumulator, which is 0, is divided by 1.
  VICINAL_DEVICE float total() const { return sum; }
  VICINAL_DEVICE float norm(float total) const { return total == 0.0f ? 1.0f : 1.0f / total; }
  VICINAL_DEVICE float lse(float total) const {
    return Binary ? (base() + log2f(total)) * kLn2 : base() + natural_log(total);
  }

 private:
  VICINAL_DEVICE static float power(float x) { return Binary ? exp2_approx(x) : natural_exp(x); }
  // While every score is -inf (or NaN) there is no maximum, and -inf - -inf would be NaN.
  VICINAL_DEVICE float base() const { return largest == -infinity() ? 0.0f : largest; }
};

}  // namespace vicinal
