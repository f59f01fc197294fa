// Runs an example variant on the GPU and, by plain loops in double precision, on the host; compares the two.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/cuda/device_info.h"
#include "runtime/cuda/launch.h"
#include "tests/support/example_variants.h"

namespace vicinal::testing {

// A shard of a grid axis. local < 0: the whole axis.
struct AxisShard {
  int extent = 0;
  int local = -1, origin = 0;
};

struct KernelProblem {
  ExampleKernel kernel;
  int batch = 2, heads = 4, kv_heads = 2;
  std::vector<AxisShard> q_axis, k_axis;
  int context = 0;
  int padding = 0;  // elements between rows; odd numbers rule out 16-byte loads
  int step = 1;     // from element to element of a row
  unsigned blocks = 13;
  bool graph = false;  // launch through a captured graph
};

// A tensor [batch, tokens, heads, dim] in memory, whose values are those of its dtype.
struct TestTensor {
  DType dtype = DType::f32;
  int batch = 0, heads = 0, tokens = 0, dim = 0;
  int padding = 0, step = 1;
  std::vector<float> values;  // dense, [batch, heads, tokens, dim]

  float& at(int b, int h, int t, int d);
  float at(int b, int h, int t, int d) const { return const_cast<TestTensor*>(this)->at(b, h, t, d); }
  std::int64_t head_stride() const { return std::int64_t{dim} * step + padding; }
  std::int64_t token_stride() const { return head_stride() * heads; }
  std::int64_t batch_stride() const { return token_stride() * tokens; }
};

struct KernelData {
  TestTensor q, k, v, context_k, context_v;
};

// Random data, the same for the same problem.
KernelData make_data(const KernelProblem& problem);

struct KernelOutcome {
  std::vector<double> out;        // dense, [batch, heads, tokens, value dim]
  std::vector<double> lse;        // dense, [batch, heads, tokens]; empty unless softmax
  std::vector<double> magnitude;  // of `out`: the sum of the absolute values of its terms; host only
};

KernelOutcome run_on_host(const KernelProblem& problem, const KernelData& data);
Result<KernelOutcome> run_on_device(const cuda::Context& context, const KernelProblem& problem,
                                    const KernelData& data);

// Fails the test with the first element that is too far from the host's result.
void check_on_device(const cuda::Context& context, const KernelProblem& problem, const KernelData& data);
void check_on_device(const cuda::Context& context, const KernelProblem& problem);

std::string describe(const KernelProblem& problem);

}  // namespace vicinal::testing
