// Emitted by vicinal. captured kernel of backward, bf16, head dim 128, value dim 128.
#include "vicinal/backward.cuh"

namespace emitted {

// What varies from launch to launch.
struct Parameters {
  alignas(8) float p0;
  vicinal::InputArgument<float, 1> x0;
  vicinal::InputArgument<float, 2> x1;
};

struct Variant {
  static constexpr int rank = 2;
  using Arguments = vicinal::BackwardArguments<rank, Parameters, 3>;
  using Query = vicinal::Query<rank>;
  using Key = vicinal::Key<rank>;
  static constexpr vicinal::Normalize normalize = vicinal::Normalize::softmax;
  static constexpr bool query_l2norm = false;
  static constexpr bool key_l2norm = false;
  static constexpr bool has_context = true;
  static constexpr bool has_mask = false;
  static constexpr bool has_score = true;
  static constexpr bool has_sink = false;
  static constexpr bool has_output = false;
  static constexpr bool align_end = false;
  static constexpr bool neighborhood = true;

  static VICINAL_DEVICE vicinal::Axis axis(const Arguments& a, int i) {
    if (i == 0) return {static_cast<int>(a.q_axis[0].extent), 8, 1, 1, true};
    return {static_cast<int>(a.q_axis[1].extent), 16, 2, 1, false};
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
    return true;
  }

  template <bool Context>
  static VICINAL_DEVICE float score(const Arguments& a, const Query& q, const Key& k, float score) {
    if constexpr (Context) {
      return (a.parameters.p0 * score) + 0x1p-1f;
    } else {
      return (a.parameters.p0 * score) + ((vicinal::load_float(a.parameters.x0, q.h) * static_cast<float>(vicinal::sub(q.coordinate[0], k.coordinate[0]))) + vicinal::load_float(a.parameters.x1, q.h, vicinal::add(static_cast<int>(a.q_axis[1].extent), vicinal::sub(k.coordinate[1], q.coordinate[1]))));
    }
  }

  static constexpr int captured = 3;
  static constexpr int scale_sites = 0;
  static constexpr int sink_sites = 0;
  static constexpr int output_sites = 0;
  template <bool Context>
  static constexpr int score_sites = Context ? 1 : 3;

  template <bool Context>
  static VICINAL_DEVICE float d_score(const Arguments& a, const Query& q, const Key& k, float score) {
    return a.parameters.p0;
  }

  static VICINAL_DEVICE float d_output_out(const Arguments& a, const Query& q, float out, float lse) {
    return 1.0f;
  }

  static VICINAL_DEVICE float d_output_lse(const Arguments& a, const Query& q, float out, float lse) {
    return 0.0f;
  }

  template <bool Context, int Site>
  static VICINAL_DEVICE void score_site(const Arguments& a, const Query& q, const Key& k, float score, vicinal::i64& element, float& slope) {
    if constexpr (Context) {
      if constexpr (Site == 0) {
        {
          element = a.captured[2].begin;
        }
        {
          slope = score;
        }
      }
    } else {
      if constexpr (Site == 0) {
        {
          element = a.captured[0].begin + vicinal::element(a.parameters.x1, q.h, vicinal::add(static_cast<int>(a.q_axis[1].extent), vicinal::sub(k.coordinate[1], q.coordinate[1])));
        }
        {
          slope = 0x1p+0f;
        }
      }
      if constexpr (Site == 1) {
        {
          element = a.captured[1].begin + vicinal::element(a.parameters.x0, q.h);
        }
        {
          slope = static_cast<float>(vicinal::sub(q.coordinate[0], k.coordinate[0]));
        }
      }
      if constexpr (Site == 2) {
        {
          element = a.captured[2].begin;
        }
        {
          slope = score;
        }
      }
    }
  }

  template <int Site>
  static VICINAL_DEVICE void scale_site(const Arguments& a, const Query& q, vicinal::i64& element, float& slope) {
  }

  template <int Site>
  static VICINAL_DEVICE void sink_site(const Arguments& a, const Query& q, vicinal::i64& element, float& slope) {
  }

  template <int Site>
  static VICINAL_DEVICE void output_site(const Arguments& a, const Query& q, float out, float lse, vicinal::i64& element, float& slope) {
  }
};
static_assert(vicinal::DifferentiatedVariant<Variant>, "the variant does not meet the contract of templates/");

}  // namespace emitted

extern "C" __global__ void __launch_bounds__(256) vicinal_backward_captured_b3d775adde5a(const __grid_constant__ emitted::Variant::Arguments a) {
  static_assert(vicinal::backward::kThreads == 256, "the host launches 256 threads");
  vicinal::backward::captured<emitted::Variant, vicinal::bf16, vicinal::bf16, 128, 128>(a);
}
