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

// A place where something learnable is read.
struct Site {
  ir::Partial partial;
  std::uint32_t slot;
};

const ir::Symbol* symbol_of(const ir::Module& module, ir::NodeId leaf) {
  return std::get_if<ir::Symbol>(&module[leaf].what);
}

// What a partial is with respect to, if it is something that is passed to the kernel.
std::optional<CapturedSlot> slot_of(const ir::Module& module, const ir::Partial& partial) {
  if (const auto* load = std::get_if<ir::Load>(&module[partial.leaf].what))
    return CapturedSlot{false, load->input};
  if (const ir::Symbol* s = symbol_of(module, partial.leaf); s != nullptr && s->kind == SymbolKind::param)
    return CapturedSlot{true, s->index};
  return std::nullopt;
}

class BackwardEmitter {
 public:
  BackwardEmitter(const Specialized& variant, const KernelOptions& options)
      : variant_(variant), options_(options), declarations_(variant, options, uses(variant)) {
    find_slots(variant.grid.module);
    if (variant.context) find_slots(variant.context->module);
  }

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
    else if (step != BackwardStep::sums)
      types = fmt::format(", {}, {}, {}, {}", element, d_out, options_.head_dim, options_.value_dim);
    return fmt::format(
        "  static_assert(vicinal::backward::kThreads == {0}, \"the host launches {0} threads\");\n"
        "  vicinal::backward::{1}<emitted::Variant{2}>(a);\n",
        kThreads, name_of(step), types);
  }

  void find_slots(const ir::Module& module) {
    for (const ir::Partial& p : module.partials)
      if (const auto slot = slot_of(module, p); slot && !number_of(*slot)) slots_.push_back(*slot);
  }
  std::optional<std::uint32_t> number_of(const CapturedSlot& slot) const {
    for (std::uint32_t i = 0; i < slots_.size(); ++i)
      if (slots_[i].param == slot.param && slots_[i].index == slot.index) return i;
    return std::nullopt;
  }

  std::vector<Site> sites(const ir::Module& module, Root of) const {
    std::vector<Site> result;
    for (const ir::Partial& p : module.partials)
      if (const auto slot = slot_of(module, p); slot && p.of == of) result.push_back({p, *number_of(*slot)});
    return result;
  }

  std::string variant_struct() const {
    std::string out =
        "struct Variant {\n" +
        variant_members(variant_, declarations_,
                        fmt::format("vicinal::BackwardArguments<rank, Parameters, {}>", slots_.size()),
                        options_.head_dim);
    const auto count = [&](std::string_view name, std::size_t n) {
      out += fmt::format("  static constexpr int {} = {};\n", name, n);
    };
    const ir::Module& grid = variant_.grid.module;
    out += "\n";
    count("captured", slots_.size());
    count("scale_sites", sites(grid, Root::scale).size());
    count("sink_sites", sites(grid, Root::sink).size());
    count("output_sites", sites(grid, Root::output).size());
    const std::size_t of_grid = sites(grid, Root::score).size(),
                      of_context = variant_.context ? sites(variant_.context->module, Root::score).size() : 0;
    out += fmt::format("  template <bool Context>\n  static constexpr int score_sites = Context ? {} : {};\n",
                       of_context, of_grid);
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
    out += score_site_function();
    const std::string row = "const Arguments& a, const Query& q, ";
    out += row_site_function("scale_site", Root::scale, row) +
           row_site_function("sink_site", Root::sink, row) +
           row_site_function("output_site", Root::output, row + "float out, float lse, ");
    return out +
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

  // Which element a site reads, and the slope there. Each in a scope of its own, since both name values.
  std::string site_body(const SpecializedKeys& keys, const Site& site, int indent) const {
    const ir::Module& m = keys.module;
    const std::string begin = fmt::format("element = a.captured[{}].begin", site.slot);
    std::string out = fmt::format("{:{}}{{\n", "", indent);
    out += std::holds_alternative<ir::Load>(m[site.partial.leaf].what)
               ? element_body(m, site.partial.leaf, keys.bounds, declarations_.names(), begin + " + ",
                              indent + 2)
               : fmt::format("{:{}}{};\n", "", indent + 2, begin);
    out += fmt::format("{0:{1}}}}\n{0:{1}}{{\n", "", indent);
    const Printer::Result slope{site.partial.value, "slope = "};
    out += function_body(m, std::span(&slope, 1), {}, keys.bounds, declarations_.names(), false, indent + 2);
    return out + fmt::format("{:{}}}}\n", "", indent);
  }

  std::string chosen_site(const SpecializedKeys& keys, Root of, int indent) const {
    std::string out;
    const std::vector<Site> all = sites(keys.module, of);
    for (std::size_t i = 0; i < all.size(); ++i)
      out += fmt::format("{0:{1}}if constexpr (Site == {2}) {{\n{3}{0:{1}}}}\n", "", indent, i,
                         site_body(keys, all[i], indent + 2));
    return out;
  }

  static constexpr std::string_view kResults = "vicinal::i64& element, float& slope";

  std::string score_site_function() const {
    std::string out = fmt::format(
        "\n  template <bool Context, int Site>\n  static VICINAL_DEVICE void score_site(const Arguments& a, "
        "const "
        "Query& q, const Key& k, float score, {}) {{\n",
        kResults);
    if (!variant_.context) return out + chosen_site(variant_.grid, Root::score, 4) + "  }\n";
    return out + "    if constexpr (Context) {\n" + chosen_site(*variant_.context, Root::score, 6) +
           "    } else {\n" + chosen_site(variant_.grid, Root::score, 6) + "    }\n  }\n";
  }

  std::string row_site_function(std::string_view name, Root of, const std::string& arguments) const {
    return fmt::format("\n  template <int Site>\n  static VICINAL_DEVICE void {}({}{}) {{\n{}  }}\n", name,
                       arguments, kResults, chosen_site(variant_.grid, of, 4));
  }

  const Specialized& variant_;
  const KernelOptions& options_;
  Declarations declarations_;
  std::vector<CapturedSlot> slots_;
};

}  // namespace

std::string_view name_of(BackwardStep step) {
  constexpr std::string_view names[] = {"rows", "queries", "keys", "captured", "sums"};
  return names[static_cast<int>(step)];
}

std::optional<std::string> backward_obstacle(const Specialized& differentiated) {
  const auto reads_dot = [](const ir::Module& module) {
    return std::ranges::any_of(module.partials, [&](const ir::Partial& p) {
      return std::holds_alternative<ir::Dot>(module[p.leaf].what);
    });
  };
  if (reads_dot(differentiated.grid.module) ||
      (differentiated.context && reads_dot(differentiated.context->module)))
    return "gradients of the tensors of a dot() are not computed on a GPU";
  return std::nullopt;
}

BackwardSource emit_backward(const Specialized& differentiated, const KernelOptions& options,
                             BackwardStep step) {
  return BackwardEmitter(differentiated, options).run(step);
}

}  // namespace vicinal::emit
