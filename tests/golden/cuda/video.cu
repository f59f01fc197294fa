// Emitted by vicinal. portable kernel, bf16, head dim 128, value dim 128.
#include "vicinal/kernel.cuh"

namespace emitted {

// What varies from launch to launch.
struct Parameters {
  alignas(8) float p0;
  vicinal::InputArgument<float, 1> x0;
  vicinal::InputArgument<int, 1> x1;
};

struct Variant {
  static constexpr int rank = 2;
  using Arguments = vicinal::ForwardArguments<rank, Parameters>;
  using Query = vicinal::Query<rank>;
  using Key = vicinal::Key<rank>;
  static constexpr vicinal::Normalize normalize = vicinal::Normalize::softmax;
  static constexpr bool query_l2norm = false;
  static constexpr bool key_l2norm = false;
  static constexpr bool has_context = true;
  static constexpr bool has_mask = true;
  static constexpr bool has_score = true;
  static constexpr bool has_sink = true;
  static constexpr bool has_output = true;
  static constexpr bool align_end = false;
  static constexpr bool neighborhood = true;

  static VICINAL_DEVICE vicinal::Axis axis(const Arguments& a, int i) {
    if (i == 0) return {static_cast<int>(a.q_axis[0].extent), 8, 1, 1, true};
    return {static_cast<int>(a.q_axis[1].extent), 16, 2, 4, false};
  }

  static VICINAL_DEVICE float scale(const Arguments& a, const Query& q) {
    return 0x1.6a09e6p-4f;  // 1 / sqrt(head dim)
  }

  static VICINAL_DEVICE float sink(const Arguments& a, const Query& q) {
    return vicinal::load_float(a.parameters.x0, q.h);
  }

  static VICINAL_DEVICE float output(const Arguments& a, const Query& q, float out, float lse) {
    return out * vicinal::sigmoid(lse);
  }

  template <bool Context>
  static VICINAL_DEVICE bool mask(const Arguments& a, const Query& q, const Key& k) {
    if constexpr (Context) {
      return k.position < vicinal::load_int(a.parameters.x1, q.b);
    } else {
      return true;
    }
  }

  template <bool Context>
  static VICINAL_DEVICE float score(const Arguments& a, const Query& q, const Key& k, float score) {
    if constexpr (Context) {
      return score - ((a.parameters.p0 * vicinal::load_float(a.parameters.x0, q.h)) * 0x0p+0f);
    } else {
      return score - ((a.parameters.p0 * vicinal::load_float(a.parameters.x0, q.h)) * static_cast<float>(vicinal::sub(q.coordinate[0], k.coordinate[0])));
    }
  }
};
static_assert(vicinal::AttentionVariant<Variant>, "the variant does not meet the contract of templates/");

}  // namespace emitted

extern "C" __global__ void __launch_bounds__(256) vicinal_forward_8c28bf68ea09(const __grid_constant__ emitted::Variant::Arguments a) {
  static_assert(vicinal::portable::kThreads == 256, "the host launches 256 threads");
  vicinal::portable::forward<emitted::Variant, vicinal::bf16, 128, 128, 64, 64>(a);
}
