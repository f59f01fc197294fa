#include "compiler/emit/cuda/backward_source.h"

#include <fmt/format.h>

#include <algorithm>

#include "compiler/emit/cuda/expression.h"
#include "compiler/emit/cuda/variant_members.h"
#include "compiler/support/hash.h"

namespace vicinal::emit {
namespace {

using ir::Root;
using ir::SymbolKind;

constexpr int kThreads = 256;

const ir::Symbol* symbol_of(const ir::Module& module, ir::NodeId leaf) {
  return std::get_if<ir::Symbol>(&module[leaf].what);
}

class BackwardEmitter {
 public:
  BackwardEmitter(const Specialized& variant, const KernelOptions& options)
      : variant_(variant),
        options_(options),
        declarations_(variant, options, uses(variant)),
        slots_(captured_slots(variant)) {}

  BackwardSource run(BackwardStep step) {
    BackwardSource result;
    KernelSource& source = result.kernel;
    const std::string body = "// What varies from launch to launch.\nstruct Parameters {\n" +
                             declarations_.parameter_members(source.parameters) + "};\n\n" + variant_struct();
    const std::string call = entry_call(step);
    source.threads = kThreads;
    source.rows = kBackwardTile;
    source.entry =
        fmt::format("vicinal_backward_{}_{}", name_of(step), support::sha256_hex(body + call).substr(0, 12));
    source.text = fmt::format(
        "// Emitted by vicinal. {} kernel of backward, {}, head dim {}, value dim {}.\n"
        "#include \"vicinal/backward.cuh\"\n\n"
        "namespace emitted {{\n\n{}}}  // namespace emitted\n\n"
        "extern \"C\" __global__ void __launch_bounds__({}) {}(const __grid_constant__ "
        "emitted::Variant::Arguments a) {{\n{}}}\n",
        name_of(step), vicinal::name_of(options_.dtype), options_.head_dim, options_.value_dim, body,
        kThreads, source.entry, call);
    result.captured = slots_;
    return result;
  }

 private:
  bool has_output() const { return variant_.declarations().root(Root::output).valid(); }

  std::string entry_call(BackwardStep step) const {
    const std::string_view element = element_type(options_.dtype), d_out = has_output() ? "float" : element;
    std::string types;
    if (step == BackwardStep::rows)
      types = fmt::format(", {}, {}", element, options_.value_dim);
    else if (step == BackwardStep::tangents)
      types = fmt::format(", {}, {}, {}", element, options_.head_dim, options_.value_dim);
    else if (step != BackwardStep::sums)
      types = fmt::format(", {}, {}, {}, {}", element, d_out, options_.head_dim, options_.value_dim);
    return fmt::format(
        "  static_assert(vicinal::backward::kThreads == {0}, \"the host launches {0} threads\");\n"
        "  vicinal::backward::{1}<emitted::Variant{2}>(a);\n",
        kThreads, name_of(step), types);
  }

  std::string variant_struct() const {
    std::string out =
        "struct Variant {\n" +
        variant_members(variant_, declarations_,
                        fmt::format("vicinal::BackwardArguments<rank, Parameters, {}>", slots_.size()),
                        options_.head_dim);
    out += fmt::format("\n  static constexpr int captured = {};\n", slots_.size());
    out += declarations_.pair_function(
        "float d_score(const Arguments& a, const Query& q, const Key& k, float score)",
        [&](const SpecializedKeys& keys, int indent) {
          return derivative(keys, Root::score, SymbolKind::score, "1.0f", indent);
        });
    for (const auto& [name, leaf, otherwise] : {std::tuple("d_output_out", SymbolKind::out, "1.0f"),
                                                std::tuple("d_output_lse", SymbolKind::lse, "0.0f")})
      out +=
          fmt::format("{}float {}(const Arguments& a, const Query& q, float out, float lse) {{\n{}  }}\n",
                      Declarations::kHead, name, derivative(variant_.grid, Root::output, leaf, otherwise, 4));
    return out + site_members(variant_, declarations_, slots_) +
           "};\nstatic_assert(vicinal::DifferentiatedVariant<Variant>, \"the variant does not meet the "
           "contract "
           "of templates/\");\n\n";
  }

  // Of a root by one of the language's own names; `otherwise` where the root is not assigned.
  std::string derivative(const SpecializedKeys& keys, Root of, SymbolKind leaf, std::string_view otherwise,
                         int indent) const {
    const ir::Module& m = keys.module;
    for (const ir::Partial& p : m.partials)
      if (const ir::Symbol* s = symbol_of(m, p.leaf); p.of == of && s != nullptr && s->kind == leaf)
        return function_body(m, p.value, keys.bounds, declarations_.names(), false, indent);
    return fmt::format("{:{}}return {};\n", "", indent, m.root(of).valid() ? "0.0f" : otherwise);
  }

  const Specialized& variant_;
  const KernelOptions& options_;
  Declarations declarations_;
  std::vector<CapturedSlot> slots_;
};

}  // namespace

std::string_view name_of(BackwardStep step) {
  constexpr std::string_view names[] = {"rows", "queries", "keys", "captured", "sums", "tangents"};
  return names[static_cast<int>(step)];
}

BackwardSource emit_backward(const Specialized& differentiated, const KernelOptions& options,
                             BackwardStep step) {
  return BackwardEmitter(differentiated, options).run(step);
}

}  // namespace vicinal::emit
