#include "compiler/emit/cuda/hopper_backward_source.h"

#include <fmt/format.h>

#include "compiler/emit/cuda/expression.h"
#include "compiler/emit/cuda/hopper_members.h"
#include "compiler/emit/cuda/products.h"
#include "compiler/emit/cuda/variant_members.h"
#include "compiler/support/hash.h"

namespace vicinal::emit {
namespace {

using ir::Root;
using ir::SymbolKind;

constexpr int kThreads = 384;       // of the keys' kernel
constexpr int kOtherThreads = 256;  // of the queries', as many as have sums
constexpr int kStages = 2, kQueryStages = 3;

// Of barriers and notes (templates/vicinal/ asserts that it is enough).
constexpr int kControlBytes = 512, kAlignment = 1024;
// Of a block on the device.
constexpr int kMostSharedBytes = 227 << 10;

// A head dim, and a tile whose sums two warpgroups share.
struct Row {
  int head_dim, tile_q, producer_registers, consumer_registers;
};
constexpr Row kSchedules[] = {{64, 128, 24, 240}, {128, 64, 40, 232}};

class HopperBackwardEmitter {
 public:
  HopperBackwardEmitter(const Specialized& variant, const KernelOptions& options,
                        const HopperBackwardSchedule& schedule)
      : variant_(variant),
        options_(options),
        schedule_(schedule),
        declarations_(variant, options, uses(variant)) {}

  KernelSource run(HopperBackwardStep step) {
    KernelSource source;
    const bool keys = step == HopperBackwardStep::keys;
    const std::string body =
        "// What varies from launch to launch.\nstruct Parameters {\n" +
        declarations_.parameter_members(source.parameters) + "};\n\n" + variant_struct() +
        (keys ? schedule_struct() + backward_products_struct(options_, schedule_.tile_q) : std::string());
    const std::string called = call(step);
    const std::string_view name = name_of(step);
    source.threads = keys ? kThreads : kOtherThreads;
    source.rows = schedule_.tile_q;
    source.shared_bytes = keys ? shared_bytes() : 0;
    source.entry =
        fmt::format("vicinal_hopper_backward_{}_{}", name, support::sha256_hex(body + called).substr(0, 12));
    source.text = fmt::format(
        "// Emitted by vicinal. {} kernel of the Hopper backward pass, {}, head dim {}, value dim {}.\n"
        "#include \"vicinal/hopper_backward.cuh\"\n\n"
        "namespace emitted {{\n\n{}}}  // namespace emitted\n\n"
        "extern \"C\" __global__ void __launch_bounds__({}, {}) {}(const __grid_constant__ "
        "vicinal::hopper::backward::LaunchArguments<emitted::Variant::Arguments> a) {{\n{}}}\n",
        name, vicinal::name_of(options_.dtype), options_.head_dim, options_.value_dim, body, source.threads,
        keys ? 1 : 2, source.entry, called);
    return source;
  }

 private:
  int shared_bytes() const { return schedule_.shared_bytes(options_.head_dim, options_.value_dim); }

  std::string call(HopperBackwardStep step) const {
    const std::string_view element = element_type(options_.dtype);
    switch (step) {
      case HopperBackwardStep::rows:
        return fmt::format(
            "  static_assert(sizeof(vicinal::hopper::backward::QueryRows<emitted::Variant, {0}>) == {1},\n"
            "                \"the host allocates {1} bytes\");\n"
            "  vicinal::hopper::backward::rows<emitted::Variant, {2}, {3}, {4}, {0}>(a);\n",
            schedule_.tile_q, schedule_.row_bytes_of_tile(), element, options_.head_dim, options_.value_dim);
      case HopperBackwardStep::keys:
        return fmt::format(
            "  static_assert(vicinal::hopper::backward::kThreads == {0}, \"the host launches {0} "
            "threads\");\n"
            "  vicinal::hopper::backward::keys<emitted::Variant, {1}, {2}, {3}, emitted::Schedule, "
            "emitted::Products>(a);\n",
            kThreads, element, options_.head_dim, options_.value_dim);
      case HopperBackwardStep::queries: break;
    }
    return fmt::format("  vicinal::hopper::backward::queries<emitted::Variant, {}, {}, {}>(a);\n", element,
                       options_.head_dim, schedule_.tile_q);
  }

  std::string schedule_struct() const {
    return fmt::format(
        "struct Schedule {{\n  static constexpr int tile_q = {};\n"
        "  static constexpr int producer_registers = {}, consumer_registers = {};\n"
        "  static constexpr int shared_bytes = {};\n}};\n\n",
        schedule_.tile_q, schedule_.producer_registers, schedule_.consumer_registers, shared_bytes());
  }

  std::string variant_struct() const {
    const HopperMembers members(variant_, options_);
    return "struct Variant {\n" +
           variant_members(variant_, declarations_, "vicinal::BackwardArguments<rank, Parameters, 0>",
                           options_.head_dim) +
           members.text(declarations_.names()) +
           Declarations::flag("dot_factor_varies",
                              members.has_core() ? scale_varies() : members.factor_varies()) +
           Declarations::flag("keeps_rows", members.asks() && members.row_bytes() != 0) +
           gain_constants(members.gain().value_or(passes::TanhGain{})) +
           declarations_.pair_function(
               "float d_score(const Arguments& a, const Query& q, const Key& k, float score)",
               [&](const SpecializedKeys& keys, int indent) { return d_score(keys, indent); }) +
           "};\nstatic_assert(vicinal::hopper::backward::Variant<Variant>, \"the variant does not meet the "
           "contract of templates/\");\n\n";
  }
  static std::string gain_constants(const passes::TanhGain& gain) {
    return fmt::format("  static constexpr float rise = {}, bound = {};\n", literal(gain.rise),
                       literal(gain.bound));
  }
  bool scale_varies() const {
    const ir::Module& m = variant_.grid.module;
    const ir::NodeId scale = m.root(Root::scale);
    return scale.valid() && ir::variance(m)[scale.value] != ir::kLaunch;
  }
  std::string d_score(const SpecializedKeys& keys, int indent) const {
    const ir::Module& m = keys.module;
    for (const ir::Partial& p : m.partials)
      if (const auto* s = std::get_if<ir::Symbol>(&m[p.leaf].what);
          p.of == Root::score && s != nullptr && s->kind == SymbolKind::score)
        return function_body(m, p.value, keys.bounds, declarations_.names(), false, indent);
    return fmt::format("{:{}}return {};\n", "", indent, m.root(Root::score).valid() ? "0.0f" : "1.0f");
  }

  const Specialized& variant_;
  const KernelOptions& options_;
  const HopperBackwardSchedule& schedule_;
  Declarations declarations_;
};

std::optional<std::string> obstacle(const ir::Module& m, const KernelOptions& options) {
  if (options.dtype != DType::bf16 && options.dtype != DType::f16)
    return fmt::format("it multiplies f16 and bf16, not {}", vicinal::name_of(options.dtype));
  if (m.normalize != ir::Normalize::softmax)
    return fmt::format("it normalizes by softmax, not {}", ir::name_of(m.normalize));
  if (m.query_l2norm || m.key_l2norm) return "it does not divide by norms";
  if (m.axes.size() > 3) return "it runs grids of up to three axes";
  if (m.context) return "it has no context keys";
  if (m.root(Root::output).valid()) return "it has no output expressions";
  return std::nullopt;
}
std::optional<std::string> obstacle(const HopperMembers& members) {
  if (members.costly_scores()) return "it computes no long expressions, nor sums over inputs, for every pair";
  if (members.transcendental_mask()) return "it computes no transcendental functions in masks";
  return std::nullopt;
}

}  // namespace

std::string_view name_of(HopperBackwardStep step) {
  switch (step) {
    case HopperBackwardStep::rows: return "rows";
    case HopperBackwardStep::keys: return "keys";
    case HopperBackwardStep::queries: break;
  }
  return "queries";
}

int HopperBackwardSchedule::shared_bytes(int head_dim, int value_dim) const {
  const int dims = head_dim + value_dim;
  return kAlignment + kControlBytes + kQueryStages * row_bytes_of_tile() + seen_bytes +
         kHopperBackwardTileK * dims * 2 + kQueryStages * tile_q * head_dim * 2 +
         kStages * tile_q * value_dim * 2 + kStages * tile_q * kHopperBackwardTileK * 2 +
         sums_of_tile(head_dim) * 4;
}

HopperBackwardChoice choose_hopper_backward(const Specialized& variant, const KernelOptions& options) {
  const ir::Module& m = variant.declarations();
  if (auto found = obstacle(m, options)) return {std::nullopt, *std::move(found)};
  const auto* const row = std::ranges::find(kSchedules, options.head_dim, &Row::head_dim);
  if (row == std::end(kSchedules) || options.value_dim != options.head_dim)
    return {std::nullopt,
            fmt::format("it has head dims 64 and 128, not {} and {}", options.head_dim, options.value_dim)};
  const HopperMembers members(variant, options);
  if (auto found = obstacle(members)) return {std::nullopt, *std::move(found)};
  HopperBackwardSchedule schedule;
  schedule.tile_q = row->tile_q;
  schedule.producer_registers = row->producer_registers;
  schedule.consumer_registers = row->consumer_registers;
  schedule.planned = members.asks();
  schedule.row_bytes = 8 + (members.has_limits() ? 8 : 0) + (schedule.planned ? members.row_bytes() : 0);
  if (members.limited() && !members.has_limits())
    schedule.seen_bytes = kHopperBackwardTileK * 8 * static_cast<int>(m.axes.size());
  if (schedule.shared_bytes(options.head_dim, options.value_dim) > kMostSharedBytes)
    return {std::nullopt, "what its mask reads of a query does not fit into shared memory"};
  return {schedule, {}};
}

KernelSource emit_hopper_backward(const Specialized& differentiated, const KernelOptions& options,
                                  const HopperBackwardSchedule& schedule, HopperBackwardStep step) {
  return HopperBackwardEmitter(differentiated, options, schedule).run(step);
}

}  // namespace vicinal::emit
