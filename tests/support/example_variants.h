// Hand-written units of the shape that the compiler emits, each with its meaning in plain C++ beside it:
// tests of the kernels need no compiler of specs.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <vicinal/dtype.h>
#include "vicinal/contract.cuh"

namespace vicinal::testing {

enum class Example {
  plain,         // no mask at all
  causal_alibi,  // end-aligned causal mask, score - slopes[h] * (q - k)
  video,         // three axes: causal; dilated; strided; and context keys
  everything,    // sink, output hook, both l2norms, a mask and a score of -inf
  sigmoid,       // sigmoid weights, l2norm of the keys, a causal window
  linear,        // weights that are the scores
};

inline constexpr Example kExamples[] = {Example::plain,      Example::causal_alibi, Example::video,
                                        Example::everything, Example::sigmoid,      Example::linear};

std::string_view name_of(Example example);

struct ExampleKernel {
  Example example = Example::plain;
  DType dtype = DType::f32;
  int head_dim = 64, value_dim = 64;
  int tile_q = 64, tile_k = 64;
  bool reference = false;  // the reference kernel in place of the portable one
};

inline constexpr std::string_view kExampleEntry = "vicinal_example";
std::string example_source(const ExampleKernel& kernel);

// A pair of tokens as the meaning of a variant sees them.
struct Pair {
  int b, h, heads;
  int q, k;  // positions
  const int* q_at;
  const int* k_at;  // coordinates; null for a context key
};

// The meaning of an example, in double precision. Dynamic parameters and inputs have the values of
// example_parameters().
struct ExampleMeaning {
  int rank = 1;
  std::vector<Axis> axes;  // extent filled in by the caller; empty: no neighborhood
  bool align_end = false, context = false, query_l2norm = false, key_l2norm = false, has_sink = false;
  Normalize normalize = Normalize::softmax;
  double scale = 0.125;
  double (*sink)(int h) = [](int) { return 0.0; };
  bool (*mask)(const Pair&) = [](const Pair&) { return true; };
  double (*score)(const Pair&, double) = [](const Pair&, double s) { return s; };
  double (*output)(double out, double lse) = [](double out, double) { return out; };
};

ExampleMeaning meaning_of(Example example);

// The slope of a head, which is what the input of `causal_alibi` holds.
inline float example_slope(int h) {
  return 1.0f / static_cast<float>(2 << h);
}
inline constexpr float kExampleSink = 0.75f;  // the dynamic param of `everything`

}  // namespace vicinal::testing
