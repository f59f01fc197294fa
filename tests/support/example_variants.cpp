#include "tests/support/example_variants.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

namespace vicinal::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// What a variant has unless it says otherwise; an emitted one spells everything out.
constexpr std::string_view kPrologue = R"(#include <vicinal/kernel.cuh>

using vicinal::Axis, vicinal::Normalize;

template <int Rank, class Parameters>
struct Defaults {
  using Arguments = vicinal::ForwardArguments<Rank, Parameters>;
  using Query = vicinal::Query<Rank>;
  using Key = vicinal::Key<Rank>;
  static constexpr int rank = Rank;
  static constexpr Normalize normalize = Normalize::softmax;
  static constexpr bool query_l2norm = false, key_l2norm = false, has_context = false, has_mask = false;
  static constexpr bool has_score = true;
  static constexpr bool has_sink = false, has_output = false, align_end = false, neighborhood = false;
  static VICINAL_DEVICE Axis axis(const Arguments& a, int i) {
    return {static_cast<int>(a.k_axis[i].extent), 0, 1, 1, false};
  }
  static VICINAL_DEVICE float scale(const Arguments&, const Query&) { return 0.125f; }
  static VICINAL_DEVICE float sink(const Arguments&, const Query&) { return 0.0f; }
  template <bool Context>
  static VICINAL_DEVICE bool mask(const Arguments&, const Query&, const Key&) { return true; }
  template <bool Context>
  static VICINAL_DEVICE float score(const Arguments&, const Query&, const Key&, float s) { return s; }
  static VICINAL_DEVICE float output(const Arguments&, const Query&, float out, float) { return out; }
};

)";

constexpr std::string_view kPlain = R"(struct Parameters {};
struct Variant : Defaults<1, Parameters> {};
)";

constexpr std::string_view kCausalAlibi = R"(struct Parameters {
  vicinal::InputArgument<float, 1> slopes;
};
struct Variant : Defaults<1, Parameters> {
  static constexpr bool align_end = true, has_mask = true;
  template <bool Context>
  static VICINAL_DEVICE bool mask(const Arguments&, const Query& q, const Key& k) { return k.position <= q.position; }
  template <bool Context>
  static VICINAL_DEVICE float score(const Arguments& a, const Query& q, const Key& k, float s) {
    const float slope = a.parameters.slopes.data[q.h * a.parameters.slopes.stride[0]];
    return s - slope * static_cast<float>(q.position - k.position);
  }
};
)";

constexpr std::string_view kVideo = R"(struct Parameters {};
struct Variant : Defaults<3, Parameters> {
  static constexpr bool neighborhood = true, has_context = true, has_mask = true;
  static VICINAL_DEVICE Axis axis(const Arguments& a, int i) {
    const int extent = static_cast<int>(a.k_axis[i].extent);
    return i == 0 ? Axis{extent, 3, 1, 1, true} : i == 1 ? Axis{extent, 2, 2, 1, false} : Axis{extent, 4, 1, 2, false};
  }
  template <bool Context>
  static VICINAL_DEVICE bool mask(const Arguments&, const Query& q, const Key& k) {
    return Context ? (k.position + q.coordinate[2]) % 3 != 1 : k.coordinate[2] != 5;
  }
  template <bool Context>
  static VICINAL_DEVICE float score(const Arguments&, const Query& q, const Key& k, float s) {
    return Context ? s - 0.5f : s - 0.25f * static_cast<float>(q.coordinate[0] - k.coordinate[0]);
  }
};
)";

constexpr std::string_view kEverything = R"(struct Parameters {
  alignas(8) float sink;
};
struct Variant : Defaults<1, Parameters> {
  static constexpr bool query_l2norm = true, key_l2norm = true, has_mask = true, has_sink = true, has_output = true;
  static VICINAL_DEVICE float scale(const Arguments&, const Query&) { return 8.0f; }
  static VICINAL_DEVICE float sink(const Arguments& a, const Query& q) {
    return q.h == 1 ? -__uint_as_float(0x7f800000) : a.parameters.sink;
  }
  template <bool Context>
  static VICINAL_DEVICE bool mask(const Arguments&, const Query& q, const Key& k) {
    return q.position % 5 != 3 && (q.position + k.position) % 3 != 0;
  }
  template <bool Context>
  static VICINAL_DEVICE float score(const Arguments&, const Query&, const Key& k, float s) {
    return k.position % 4 == 1 ? -__uint_as_float(0x7f800000) : 2.0f * tanhf(s * 0.5f);
  }
  static VICINAL_DEVICE float output(const Arguments&, const Query&, float out, float lse) {
    return out / (1.0f + expf(-lse));
  }
};
)";

constexpr std::string_view kSigmoid = R"(struct Parameters {};
struct Variant : Defaults<1, Parameters> {
  static constexpr Normalize normalize = Normalize::sigmoid;
  static constexpr bool key_l2norm = true, neighborhood = true;
  static VICINAL_DEVICE Axis axis(const Arguments& a, int) {
    return {static_cast<int>(a.k_axis[0].extent), 9, 1, 3, true};
  }
};
)";

constexpr std::string_view kLinear = R"(struct Parameters {};
struct Variant : Defaults<1, Parameters> {
  static constexpr Normalize normalize = Normalize::none;
  static constexpr bool has_mask = true;
  template <bool Context>
  static VICINAL_DEVICE bool mask(const Arguments&, const Query& q, const Key& k) { return k.position != q.position; }
};
)";

constexpr std::string_view kEpilogue = R"(
static_assert(vicinal::AttentionVariant<Variant>, "the variant does not fulfil its contract");

extern "C" __global__ void __launch_bounds__(vicinal::{0}::kThreads)
{1}(const __grid_constant__ Variant::Arguments a) {{
  vicinal::{0}::forward<Variant, {2}, {3}, {4}, {5}, {6}>(a);
}}
)";

struct Row {
  std::string_view name, text;
};

constexpr Row kRows[] = {{"plain", kPlain},           {"causal_alibi", kCausalAlibi}, {"video", kVideo},
                         {"everything", kEverything}, {"sigmoid", kSigmoid},          {"linear", kLinear}};

std::string_view device_type(DType dtype) {
  return dtype == DType::f32 ? "float" : dtype == DType::bf16 ? "vicinal::bf16" : "vicinal::f16";
}

}  // namespace

std::string_view name_of(Example example) {
  return kRows[static_cast<int>(example)].name;
}

std::string example_source(const ExampleKernel& kernel) {
  return fmt::format("{}{}", kPrologue, kRows[static_cast<int>(kernel.example)].text) +
         fmt::format(kEpilogue, kernel.reference ? "reference" : "portable", kExampleEntry,
                     device_type(kernel.dtype), kernel.head_dim, kernel.value_dim, kernel.tile_q,
                     kernel.tile_k);
}

ExampleMeaning meaning_of(Example example) {
  ExampleMeaning m;
  switch (example) {
    case Example::plain: break;
    case Example::causal_alibi:
      m.align_end = true;
      m.mask = [](const Pair& p) { return p.k <= p.q; };
      m.score = [](const Pair& p, double s) {
        return s - static_cast<double>(example_slope(p.h)) * (p.q - p.k);
      };
      break;
    case Example::video:
      m.rank = 3;
      m.axes = {{0, 3, 1, 1, true}, {0, 2, 2, 1, false}, {0, 4, 1, 2, false}};
      m.context = true;
      m.mask = [](const Pair& p) { return p.k_at ? p.k_at[2] != 5 : (p.k + p.q_at[2]) % 3 != 1; };
      m.score = [](const Pair& p, double s) { return p.k_at ? s - 0.25 * (p.q_at[0] - p.k_at[0]) : s - 0.5; };
      break;
    case Example::everything:
      m.query_l2norm = m.key_l2norm = m.has_sink = true;
      m.scale = 8.0;
      m.sink = [](int h) { return h == 1 ? -kInfinity : static_cast<double>(kExampleSink); };
      m.mask = [](const Pair& p) { return p.q % 5 != 3 && (p.q + p.k) % 3 != 0; };
      m.score = [](const Pair& p, double s) { return p.k % 4 == 1 ? -kInfinity : 2.0 * std::tanh(s * 0.5); };
      m.output = [](double out, double lse) { return out / (1.0 + std::exp(-lse)); };
      break;
    case Example::sigmoid:
      m.normalize = Normalize::sigmoid;
      m.axes = {{0, 9, 1, 3, true}};
      m.key_l2norm = true;
      break;
    case Example::linear:
      m.normalize = Normalize::none;
      m.mask = [](const Pair& p) { return p.k != p.q; };
      break;
  }
  return m;
}

}  // namespace vicinal::testing
