// Emitted by vicinal. portable kernel, bf16, head dim 128, value dim 128.
#include "vicinal/kernel.cuh"

namespace emitted {

// What varies from launch to launch.
struct Parameters {
};

struct Variant {
  static constexpr int rank = 1;
  using Arguments = vicinal::ForwardArguments<rank, Parameters>;
  using Query = vicinal::Query<rank>;
  using Key = vicinal::Key<rank>;
  static constexpr vicinal::Normalize normalize = vicinal::Normalize::softmax;
  static constexpr bool query_l2norm = false;
  static constexpr bool key_l2norm = false;
  static constexpr bool has_context = false;
  static constexpr bool has_mask = true;
  static constexpr bool has_score = false;
  static constexpr bool has_sink = false;
  static constexpr bool has_output = false;
  static constexpr bool align_end = false;
  static constexpr bool neighborhood = false;

  static VICINAL_DEVICE vicinal::Axis axis(const Arguments& a, int i) {
    return {static_cast<int>(a.q_axis[i].extent), 0, 1, 1, false};
  }

  static VICINAL_DEVICE float scale(const Arguments& a, const Query& q) {
    return 0x1.6a09e6p-4f;  // 1 / sqrt(head dim)
  }

  static VICINAL_DEVICE float sink(const Arguments& a, const Query& q) {
    return 0.0f;
  }

  static VICINAL_DEVICE float output(const Arguments& a, const Query& q, float out, float lse) {
    return out;
  }

  template <bool Context>
  static VICINAL_DEVICE bool mask(const Arguments& a, const Query& q, const Key& k) {
    return k.position <= q.position;
  }

  template <bool Context>
  static VICINAL_DEVICE float score(const Arguments& a, const Query& q, const Key& k, float score) {
    return score;
  }
};
static_assert(vicinal::AttentionVariant<Variant>, "the variant does not meet the contract of templates/");

}  // namespace emitted

extern "C" __global__ void __launch_bounds__(256) vicinal_forward_4f56c1346ed3(const __grid_constant__ emitted::Variant::Arguments a) {
  static_assert(vicinal::portable::kThreads == 256, "the host launches 256 threads");
  vicinal::portable::forward<emitted::Variant, vicinal::bf16, 128, 128, 64, 64>(a);
}
