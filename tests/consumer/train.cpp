// A whole program that trains: a bias for each head and distance is learned, by gradient descent, until
// attention with it gives what attention with another one, the teacher's, gave.
#include <vicinal/vicinal.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string_view>
#include <vector>

constexpr std::string_view kSpec = R"(
attention learned {
  input bias: float[heads, 8] learnable

  score = score + bias[h, min(q - k, 7)]
  mask  = k <= q
}
)";

constexpr std::int64_t kHeads = 2, kTokens = 32, kDim = 16;
constexpr int kSteps = 120;
constexpr float kRate = 8;

std::vector<float> waves(std::int64_t count, double step) {
  std::vector<float> x(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>(std::sin(step * static_cast<double>(i)));
  return x;
}

// The mean of (out - wanted)^2, and its gradient.
double loss_of(const std::vector<float>& out, const std::vector<float>& wanted, std::vector<float>& d_out) {
  double loss = 0;
  const auto count = static_cast<double>(kTokens * kDim);  // a mean within each head
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double difference = out[i] - wanted[i];
    loss += difference * difference / count;
    d_out[i] = static_cast<float>(2 * difference / count);
  }
  return loss;
}

int main() try {
  const std::int64_t count = kHeads * kTokens * kDim;
  std::vector<float> q = waves(count, 0.37), k = waves(count, 0.71), v = waves(count, 1.93),
                     teacher = waves(kHeads * 8, 0.9), bias(teacher.size()), d_bias(teacher.size()),
                     wanted(q.size()), out(q.size()), d_out(q.size());
  const auto rows = [](std::vector<float>& x) {
    return vicinal::Tensor{x.data(), vicinal::f32, {1, kHeads, kTokens, kDim}, {}};
  };
  const auto table = [](std::vector<float>& x) {
    return vicinal::Tensor{x.data(), vicinal::f32, {kHeads, 8}, {}};
  };
  const auto arguments = [&](std::vector<float>& with, std::vector<float>& to) {
    return vicinal::RunArguments{
        .q = rows(q), .k = rows(k), .v = rows(v), .out = rows(to), .inputs = {{"bias", table(with)}}};
  };

  const vicinal::Spec spec = vicinal::Spec::from_string(kSpec).value();
  const vicinal::Kernel kernel =
      vicinal::compile(spec, {.backend = vicinal::Backend::cpu, .dtype = vicinal::f32, .head_dim = kDim})
          .value();
  kernel.run(arguments(teacher, wanted)).value();
  double first = 0, last = 0;
  for (int step = 0; step <= kSteps; ++step) {
    const vicinal::RunArguments run = arguments(bias, out);
    kernel.run(run).value();
    last = loss_of(out, wanted, d_out);
    if (step == 0) first = last;
    if (step % 40 == 0) std::printf("step %3d: loss %.2e\n", step, last);
    kernel.backward(run, {.out = rows(d_out)}, {.inputs = {{"bias", table(d_bias)}}}).value();
    for (std::size_t i = 0; i < bias.size(); ++i) bias[i] -= kRate * d_bias[i];
  }
  std::printf("the loss fell to 1 / %.0f of what it was\n", first / last);
  return last < first / 100 ? 0 : 1;
} catch (const vicinal::Error& e) {
  std::fprintf(stderr, "error: %s\n%s\n", e.message.c_str(), e.help.c_str());
  return 2;
}
