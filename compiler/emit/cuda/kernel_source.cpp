#include "compiler/emit/cuda/kernel_source.h"

#include <fmt/format.h>

#include "compiler/emit/cuda/declarations.h"
#include "compiler/emit/cuda/hopper_members.h"
#include "compiler/emit/cuda/products.h"
#include "compiler/emit/cuda/variant_members.h"
#include "compiler/support/hash.h"

namespace vicinal::emit {
namespace {

struct KernelRow {
  KernelKind kind;
  std::string_view name;
  int threads;  // of one without schedules
  bool row_per_thread;
  std::string_view header;
};
constexpr KernelRow kKernels[] = {
    {KernelKind::portable, "portable", 256, false, "vicinal/kernel.cuh"},
    {KernelKind::reference, "reference", 256, true, "vicinal/kernel.cuh"},
    {KernelKind::mma, "mma", 0, false, "vicinal/mma.cuh"},
    {KernelKind::hopper, "hopper", 0, false, "vicinal/hopper.cuh"},
};
const KernelRow& row(KernelKind kind) {
  return kKernels[static_cast<int>(kind)];
}

class Emitter {
 public:
  Emitter(const Specialized& variant, const KernelOptions& options)
      : variant_(variant), options_(options), declarations_(variant, options, uses(variant)) {}

  KernelSource run() {
    KernelSource source;
    const std::string body = "// What varies from launch to launch.\nstruct Parameters {\n" +
                             declarations_.parameter_members(source.parameters) + "};\n\n" + variant_struct();
    const KernelRow& kernel = row(options_.kind);
    source.threads = hopper() ? options_.schedule.threads() : mma() ? options_.mma.threads() : kernel.threads;
    source.rows = kernel.row_per_thread ? kernel.threads : options_.tile_q;
    source.shared_bytes = shared_bytes();
    // The name tells kernels apart in a profile; everything it depends on is hashed.
    const std::string call = hopper() || mma() ? scheduled_call(kernel) : entry_call(kernel);
    source.entry = "vicinal_forward_" + support::sha256_hex(body + call).substr(0, 12);
    source.text = fmt::format(
        "// Emitted by vicinal. {} kernel, {}, head dim {}, value dim {}.\n"
        "#include \"{}\"\n\n"
        // A name, since NVRTC gives an unnamed namespace another symbol every time, and equal text should
        // give equal bytes.
        "namespace emitted {{\n\n{}}}  // namespace emitted\n\n"
        "extern \"C\" __global__ void __launch_bounds__({}) {}(const __grid_constant__ {} a) {{\n{}}}\n",
        kernel.name, vicinal::name_of(options_.dtype), options_.head_dim, options_.value_dim, kernel.header,
        body, launch_bounds(source.threads), source.entry,
        hopper() ? "vicinal::hopper::LaunchArguments<emitted::Variant::Arguments>"
                 : "emitted::Variant::Arguments",
        call);
    return source;
  }

 private:
  std::string entry_call(const KernelRow& kernel) const {
    return fmt::format(
        "  static_assert(vicinal::{0}::kThreads == {1}, \"the host launches {1} threads\");\n"
        "  vicinal::{0}::forward<emitted::Variant, {2}, {3}, {4}, {5}, {6}>(a);\n",
        kernel.name, kernel.threads, element_type(options_.dtype), options_.head_dim, options_.value_dim,
        options_.tile_q, options_.tile_k);
  }

  bool hopper() const { return options_.kind == KernelKind::hopper; }
  bool mma() const { return options_.kind == KernelKind::mma; }
  std::string launch_bounds(int threads) const {
    if (hopper()) return fmt::format("{}, {}", threads, options_.schedule.blocks);
    return mma() ? fmt::format("{}, {}", threads, options_.mma.blocks) : fmt::format("{}", threads);
  }
  int shared_bytes() const {
    if (mma()) return options_.mma.shared_bytes(options_.head_dim, options_.value_dim);
    if (!hopper()) return 0;
    return options_.schedule.shared_bytes(options_.head_dim, options_.value_dim,
                                          static_cast<int>(declarations_.rank()),
                                          HopperMembers(variant_, options_).column_bytes());
  }
  std::string scheduled_call(const KernelRow& kernel) const {
    return fmt::format("  vicinal::{}::forward<emitted::Variant, {}, {}, {}, emitted::Schedule{}>(a);\n",
                       kernel.name, element_type(options_.dtype), options_.head_dim, options_.value_dim,
                       hopper() ? ", emitted::Products" : "");
  }
  std::string mma_schedule() const {
    const MmaSchedule& s = options_.mma;
    return fmt::format(
        "struct Schedule {{\n"
        "  static constexpr int tile_q = {}, tile_k = {}, chunk = {}, warps = {};\n"
        "  static constexpr bool holds_queries = {};\n"
        "  static constexpr bool split = {};  // fp32 products, from three of tf32\n"
        "  static constexpr int shared_bytes = {};\n}};\n\n",
        s.tile_q, s.tile_k, s.chunk, s.warps, s.holds_queries,
        options_.dtype == DType::f32 && options_.precision == Precision::ieee, shared_bytes());
  }
  std::string hopper_schedule() const {
    const HopperSchedule& s = options_.schedule;
    return fmt::format(
        "struct Schedule {{\n"
        "  static constexpr int tile_q = {}, tile_k = {}, stages = {};\n"
        "  static constexpr int producer_registers = {}, consumer_registers = {};\n"
        "  static constexpr bool ping_pong = {}, early_rescale = {}, skips = {}, output_apart = {};\n"
        "  static constexpr int shared_bytes = {};\n}};\n\n",
        s.tile_q, s.tile_k, s.stages, s.producer_registers, s.consumer_registers, s.ping_pong,
        s.early_rescale, s.skips, s.output_apart, shared_bytes());
  }

  std::string variant_struct() const {
    std::string out = "struct Variant {\n" + variant_members(variant_, declarations_,
                                                             "vicinal::ForwardArguments<rank, Parameters>",
                                                             options_.head_dim);
    if (hopper()) out += HopperMembers(variant_, options_).text(declarations_.names());
    out += fmt::format(
        "}};\nstatic_assert(vicinal::{}<Variant>, \"the variant does not meet the contract of "
        "templates/\");\n\n",
        hopper() ? "hopper::Variant" : "AttentionVariant");
    if (hopper()) out += hopper_schedule() + products_struct(options_);
    if (mma()) out += mma_schedule();
    return out;
  }

  const Specialized& variant_;
  const KernelOptions& options_;
  Declarations declarations_;
};

}  // namespace

std::string_view name_of(KernelKind kind) {
  return row(kind).name;
}

std::optional<KernelKind> kernel_named(std::string_view name) {
  for (const KernelRow& kernel : kKernels)
    if (kernel.name == name) return kernel.kind;
  return std::nullopt;
}

KernelSource emit_cuda(const Specialized& variant, const KernelOptions& options) {
  return Emitter(variant, options).run();
}

}  // namespace vicinal::emit
