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

  template <vicinal::Root In>
  static VICINAL_DEVICE constexpr auto sites() {
    if constexpr (In == vicinal::Root::score) return vicinal::Sites<3>{{{0, vicinal::Adding::distance, false}, {1, vicinal::Adding::head, false}, {2, vicinal::Adding::head, false}}};
    else if constexpr (In == vicinal::Root::context_score) return vicinal::Sites<1>{{{2, vicinal::Adding::head, false}}};
    else return vicinal::Sites<0>{};
  }

  template <vicinal::Root In, int N>
  static VICINAL_DEVICE void site(const Arguments& a, const Query& q, const Key& k, float score, float out, float lse, vicinal::i64& element, float& slope) {
    if constexpr (In == vicinal::Root::score && N == 0) {
      {
        element = vicinal::element(a.parameters.x1, q.h, vicinal::add(static_cast<int>(a.q_axis[1].extent), vicinal::sub(k.coordinate[1], q.coordinate[1])));
      }
      {
        slope = 0x1p+0f;
      }
    }
    if constexpr (In == vicinal::Root::score && N == 1) {
      {
        element = vicinal::element(a.parameters.x0, q.h);
      }
      {
        slope = static_cast<float>(vicinal::sub(q.coordinate[0], k.coordinate[0]));
      }
    }
    if constexpr (In == vicinal::Root::score && N == 2) {
      {
        element = 0;
      }
      {
        slope = score;
      }
    }
    if constexpr (In == vicinal::Root::context_score && N == 0) {
      {
        element = 0;
      }
      {
        slope = score;
      }
    }
  }
};
static_assert(vicinal::DifferentiatedVariant<Variant>, "the variant does not meet the contract of templates/");

}  // namespace emitted

extern "C" __global__ void __launch_bounds__(256) vicinal_backward_captured_155eab6dcf6d(const __grid_constant__ emitted::Variant::Arguments a) {
  static_assert(vicinal::backward::kThreads == 256, "the host launches 256 threads");
  vicinal::backward::captured<emitted::Variant, vicinal::bf16, vicinal::bf16, 128, 128>(a);
}
