// A whole program that uses the library: a causal variant with a learned bias for each head and distance,
// written in the program itself, compiled, run on host tensors, and compared with plain loops.
#include <vicinal/vicinal.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string_view>
#include <vector>

constexpr std::string_view kSpec = R"(
attention biased {
  input bias: float[heads, 8]

  score = score + bias[h, min(q - k, 7)]
  mask  = k <= q
}
)";

constexpr std::int64_t kHeads = 2, kTokens = 32, kDim = 16;

// out[h, q] = sum over k <= q of softmax(scores)[k] * v[h, k]
std::vector<float> plain_loops(const std::vector<float>& q, const std::vector<float>& k,
                               const std::vector<float>& v, const std::vector<float>& bias) {
  std::vector<float> out(q.size());
  const auto at = [](std::int64_t head, std::int64_t token) {
    return static_cast<std::size_t>((head * kTokens + token) * kDim);
  };
  for (std::int64_t h = 0; h < kHeads; ++h)
    for (std::int64_t i = 0; i < kTokens; ++i) {
      double sum = 0, weighted[kDim] = {};
      for (std::int64_t j = 0; j <= i; ++j) {
        double score = 0;
        for (std::size_t c = 0; c < kDim; ++c) score += double{q[at(h, i) + c]} * k[at(h, j) + c];
        score /= std::sqrt(double{kDim});
        score += bias[static_cast<std::size_t>(h * 8 + std::min<std::int64_t>(i - j, 7))];
        sum += std::exp(score);
        for (std::size_t c = 0; c < kDim; ++c) weighted[c] += std::exp(score) * v[at(h, j) + c];
      }
      for (std::size_t c = 0; c < kDim; ++c) out[at(h, i) + c] = static_cast<float>(weighted[c] / sum);
    }
  return out;
}

std::vector<float> waves(std::int64_t count, double step) {
  std::vector<float> x(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>(std::sin(step * static_cast<double>(i)));
  return x;
}

int main() try {
  const std::int64_t count = kHeads * kTokens * kDim;
  std::vector<float> q = waves(count, 0.37), k = waves(count, 0.71), v = waves(count, 0.13),
                     bias = waves(kHeads * 8, 0.9), out(q.size());
  const auto tensor = [](std::vector<float>& x) {
    return vicinal::Tensor{x.data(), vicinal::f32, {1, kHeads, kTokens, kDim}, {}};
  };

  const vicinal::Spec spec = vicinal::Spec::from_string(kSpec).value();
  const vicinal::Kernel kernel =
      vicinal::compile(spec, {.backend = vicinal::Backend::cpu, .dtype = vicinal::f32, .head_dim = kDim})
          .value();
  kernel
      .run({.q = tensor(q),
            .k = tensor(k),
            .v = tensor(v),
            .out = tensor(out),
            .inputs = {{"bias", {bias.data(), vicinal::f32, {kHeads, 8}, {}}}}})
      .value();

  const std::vector<float> expected = plain_loops(q, k, v, bias);
  double worst = 0;
  for (std::size_t i = 0; i < out.size(); ++i) worst = std::fmax(worst, std::fabs(out[i] - expected[i]));
  std::printf("%s on %s: out = %.4f %.4f %.4f ...; largest difference from plain loops %.1e\n",
              spec.name().c_str(), kernel.info().path.c_str(), static_cast<double>(out[0]),
              static_cast<double>(out[1]), static_cast<double>(out[2]), worst);
  return worst < 1e-5 ? 0 : 1;
} catch (const vicinal::Error& e) {
  std::fprintf(stderr, "error: %s\n%s\n", e.message.c_str(), e.help.c_str());
  return 2;
}
