// Emitted by vicinal. captured kernel of backward, bf16, head dim 128, value dim 128.
#include "vicinal/backward.cuh"

namespace emitted {

// What varies from launch to launch.
struct Parameters {
  vicinal::InputArgument<float, 1> x0;
  vicinal::InputArgument<float, 1> x1;
};

struct Variant {
  static constexpr int rank = 1;
  using Arguments = vicinal::BackwardArguments<rank, Parameters, 2>;
  using Query = vicinal::Query<rank>;
  using Key = vicinal::Key<rank>;
  static constexpr vicinal::Normalize normalize = vicinal::Normalize::softmax;
  static constexpr bool query_l2norm = false;
  static constexpr bool key_l2norm = false;
  static constexpr bool has_context = false;
  static constexpr bool has_mask = false;
  static constexpr bool has_score = false;
  static constexpr bool has_sink = true;
  static constexpr bool has_output = true;
  static constexpr bool align_end = false;
  static constexpr bool neighborhood = false;

  static VICINAL_DEVICE vicinal::Axis axis(const Arguments& a, int i) {
    return {static_cast<int>(a.q_axis[i].extent), 0, 1, 1, false};
  }

  static VICINAL_DEVICE float scale(const Arguments& a, const Query& q) {
    return fminf(expf(vicinal::load_float(a.parameters.x0, q.h)), 0x1.9p+6f);
  }

  static VICINAL_DEVICE float sink(const Arguments& a, const Query& q) {
    const float v6 = vicinal::load_float(a.parameters.x1, q.h);
    return (v6 * v6) * 0x1p+1f;
  }

  static VICINAL_DEVICE float output(const Arguments& a, const Query& q, float out, float lse) {
    return out * vicinal::sigmoid((lse - vicinal::load_float(a.parameters.x1, q.h)));
  }

  template <bool Context>
  static VICINAL_DEVICE bool mask(const Arguments& a, const Query& q, const Key& k) {
    return true;
  }

  template <bool Context>
  static VICINAL_DEVICE float score(const Arguments& a, const Query& q, const Key& k, float score) {
    return score;
  }

  static constexpr int captured = 2;

  template <bool Context>
  static VICINAL_DEVICE float d_score(const Arguments& a, const Query& q, const Key& k, float score) {
    return 1.0f;
  }

  static VICINAL_DEVICE float d_output_out(const Arguments& a, const Query& q, float out, float lse) {
    return vicinal::sigmoid((lse - vicinal::load_float(a.parameters.x1, q.h)));
  }

  static VICINAL_DEVICE float d_output_lse(const Arguments& a, const Query& q, float out, float lse) {
    const float v13 = vicinal::sigmoid((lse - vicinal::load_float(a.parameters.x1, q.h)));
    return (out * v13) * (0x1p+0f - v13);
  }

  template <vicinal::Root In>
  static VICINAL_DEVICE constexpr auto sites() {
    if constexpr (In == vicinal::Root::scale) return vicinal::Sites<1>{{{0, vicinal::Adding::head, false}}};
    else if constexpr (In == vicinal::Root::sink) return vicinal::Sites<1>{{{1, vicinal::Adding::head, false}}};
    else if constexpr (In == vicinal::Root::output) return vicinal::Sites<1>{{{1, vicinal::Adding::head, false}}};
    else return vicinal::Sites<0>{};
  }

  template <vicinal::Root In, int N>
  static VICINAL_DEVICE void site(const Arguments& a, const Query& q, const Key& k, float score, float out, float lse, vicinal::i64& element, float& slope) {
    if constexpr (In == vicinal::Root::scale && N == 0) {
      {
        element = vicinal::element(a.parameters.x0, q.h);
      }
      {
        const float v3 = expf(vicinal::load_float(a.parameters.x0, q.h));
        slope = (v3 < 0x1.9p+6f) ? v3 : 0x0p+0f;
      }
    }
    if constexpr (In == vicinal::Root::sink && N == 0) {
      {
        element = vicinal::element(a.parameters.x1, q.h);
      }
      {
        slope = vicinal::load_float(a.parameters.x1, q.h) * 0x1p+2f;
      }
    }
    if constexpr (In == vicinal::Root::output && N == 0) {
      {
        element = vicinal::element(a.parameters.x1, q.h);
      }
      {
        const float v13 = vicinal::sigmoid((lse - vicinal::load_float(a.parameters.x1, q.h)));
        slope = -((out * v13) * (0x1p+0f - v13));
      }
    }
  }
};
static_assert(vicinal::DifferentiatedVariant<Variant>, "the variant does not meet the contract of templates/");

}  // namespace emitted

extern "C" __global__ void __launch_bounds__(256) vicinal_backward_captured_f2dbea6fd024(const __grid_constant__ emitted::Variant::Arguments a) {
  static_assert(vicinal::backward::kThreads == 256, "the host launches 256 threads");
  vicinal::backward::captured<emitted::Variant, vicinal::bf16, float, 128, 128>(a);
}
