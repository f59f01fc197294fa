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

// Through the base-2 units. The difference of two scores is taken before the change of base,
// where it is exact or nearly so.
VICINAL_DEVICE float natural_exp(float x) {
  return exp2_approx(x * 1.4426950408889634f);
}
VICINAL_DEVICE float natural_log(float x) {
  return log2f(x) * 0.6931471805599453f;
}

template <Normalize N>
struct RowWeights {
  VICINAL_DEVICE void start(float, bool) {}
  VICINAL_DEVICE float raise(float) { return 1.0f; }
  VICINAL_DEVICE float weigh(float score) {
    if (score == -infinity()) return 0.0f;
    return N == Normalize::sigmoid ? 1.0f / (1.0f + natural_exp(-score)) : score;
  }
  VICINAL_DEVICE float total() const { return 1.0f; }
  VICINAL_DEVICE float norm(float) const { return 1.0f; }
  VICINAL_DEVICE float lse(float) const { return 0.0f; }
};

template <>
struct RowWeights<Normalize::softmax> {
  float largest;  // score so far, the sink's included
  float sum;      // of the weights that went through this object

  // The sink is a score without a value. Of the objects that share a row exactly one counts it.
  VICINAL_DEVICE void start(float sink, bool counts) {
    largest = sink;
    sum = counts && sink != -infinity() ? 1.0f : 0.0f;
  }

  // Takes a larger maximum; returns the factor for everything accumulated so far.
  VICINAL_DEVICE float raise(float score) {
    const float before = largest;
    largest = fmaxf(largest, score);
    const float factor = natural_exp(before - base());
    sum *= factor;
    return factor;
  }

  VICINAL_DEVICE float weigh(float score) {
    const float weight = natural_exp(score - base());
    sum += weight;
    return weight;
  }

  // Of the row: `total` is the sum over the objects that share it. A row that keeps nothing has the LSE of
  // its sink, and its accumulator, which is 0, is divided by 1.
  VICINAL_DEVICE float total() const { return sum; }
  VICINAL_DEVICE float norm(float total) const { return total == 0.0f ? 1.0f : 1.0f / total; }
  VICINAL_DEVICE float lse(float total) const { return base() + natural_log(total); }

 private:
  // While every score is -inf (or NaN) there is no maximum, and -inf - -inf would be NaN.
  VICINAL_DEVICE float base() const { return largest == -infinity() ? 0.0f : largest; }
};

}  // namespace vicinal
