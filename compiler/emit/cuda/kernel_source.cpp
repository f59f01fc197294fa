#include "compiler/emit/cuda/kernel_source.h"

#include <fmt/format.h>

#include <cmath>

#include "compiler/emit/cuda/expression.h"
#include "compiler/ir/text.h"
#include "compiler/support/hash.h"
#include "compiler/support/text.h"

namespace vicinal::emit {
namespace {

using ir::Root;

struct KernelRow {
  KernelKind kind;
  std::string_view name;
  int threads;
  bool row_per_thread;
};
constexpr KernelRow kKernels[] = {
    {KernelKind::portable, "portable", 256, false},
    {KernelKind::reference, "reference", 256, true},
};
const KernelRow& row(KernelKind kind) {
  return kKernels[static_cast<int>(kind)];
}

std::string_view element_type(DType dtype) {
  constexpr std::string_view names[] = {"vicinal::f16", "vicinal::bf16", "float", "double",
                                        "signed char",  "unsigned char", "short", "unsigned short",
                                        "int",          "long long",     "bool"};
  return names[static_cast<int>(dtype)];
}

class Emitter {
 public:
  Emitter(const Specialized& variant, const KernelOptions& options)
      : variant_(variant), options_(options), module_(variant.declarations()), used_(uses(variant)) {
    names_.head_dim = options.head_dim;
    for (std::size_t i = 0; i < module_.params.size(); ++i)
      names_.params.push_back(fmt::format("parameters.p{}", i));
    for (std::size_t i = 0; i < module_.extents.size(); ++i)
      names_.extents.push_back(fmt::format("parameters.e{}", i));
    for (std::size_t i = 0; i < module_.inputs.size(); ++i)
      names_.inputs.push_back(fmt::format("parameters.x{}", i));
  }

  KernelSource run() {
    KernelSource source;
    const std::string body = parameters(source.parameters) + variant_struct();
    const KernelRow& kernel = row(options_.kind);
    source.threads = kernel.threads;
    source.rows = kernel.row_per_thread ? kernel.threads : options_.tile_q;
    // The name tells kernels apart in a profile; everything it depends on is hashed.
    const std::string call = entry_call(kernel);
    source.entry = "vicinal_forward_" + support::sha256_hex(body + call).substr(0, 12);
    source.text = fmt::format(
        "// Emitted by vicinal. {} kernel, {}, head dim {}, value dim {}.\n"
        "#include \"vicinal/kernel.cuh\"\n\n"
        // A name, since NVRTC gives an unnamed namespace another symbol every time, and equal text should
        // give equal bytes.
        "namespace emitted {{\n\n{}}}  // namespace emitted\n\n"
        "extern \"C\" __global__ void __launch_bounds__({}) {}(const __grid_constant__ "
        "emitted::Variant::Arguments "
        "a) {{\n{}}}\n",
        kernel.name, vicinal::name_of(options_.dtype), options_.head_dim, options_.value_dim, body,
        kernel.threads, source.entry, call);
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

  std::string parameters(std::vector<ParameterSlot>& slots) const {
    std::string out = "// What varies from launch to launch.\nstruct Parameters {\n";
    const auto field = [&](ParameterSlot::Kind kind, std::size_t i, std::string_view type, char letter) {
      slots.push_back({kind, static_cast<std::uint32_t>(i)});
      fmt::format_to(std::back_inserter(out), "  {} {}{};\n", type, letter, i);
    };
    for (std::size_t i = 0; i < module_.params.size(); ++i)
      if (used_.params[i])
        field(ParameterSlot::Kind::param, i,
              module_.params[i].type == ir::Type::real ? "alignas(8) float" : "long long", 'p');
    for (std::size_t i = 0; i < module_.extents.size(); ++i)
      if (used_.extents[i]) field(ParameterSlot::Kind::extent, i, "long long", 'e');
    for (std::size_t i = 0; i < module_.inputs.size(); ++i) {
      if (!used_.inputs[i]) continue;
      const DType dtype = i < options_.input_dtypes.size() ? options_.input_dtypes[i]
                                                           : default_input_dtype(module_.inputs[i].type);
      field(ParameterSlot::Kind::input, i,
            fmt::format("vicinal::InputArgument<{}, {}>", element_type(dtype), module_.inputs[i].dims.size()),
            'x');
    }
    return out + "};\n\n";
  }

  bool neighborhood() const {
    for (const ir::Axis& a : module_.axes)
      if (a.window.valid() || a.causal || (a.dilation.valid() && module_.constant_value(a.dilation)->i != 1))
        return true;
    return false;
  }
  std::size_t rank() const { return std::max<std::size_t>(1, module_.axes.size()); }

  std::string variant_struct() const {
    const auto flag = [](std::string_view name, bool value) {
      return fmt::format("  static constexpr bool {} = {};\n", name, value);
    };
    std::string out = fmt::format(
        "struct Variant {{\n  static constexpr int rank = {};\n  using Arguments = "
        "vicinal::ForwardArguments<rank, Parameters>;\n"
        "  using Query = vicinal::Query<rank>;\n  using Key = vicinal::Key<rank>;\n"
        "  static constexpr vicinal::Normalize normalize = vicinal::Normalize::{};\n",
        rank(), ir::name_of(module_.normalize));
    out += flag("query_l2norm", module_.query_l2norm) + flag("key_l2norm", module_.key_l2norm) +
           flag("has_context", module_.context) + flag("has_mask", has_mask()) +
           flag("has_sink", module_.root(Root::sink).valid()) +
           flag("has_output", module_.root(Root::output).valid()) + flag("align_end", module_.align_end) +
           flag("neighborhood", neighborhood());
    out += axis_function() + scale_function() + sink_function() + output_function();
    out += pair_function("bool mask(const Arguments& a, const Query& q, const Key& k)", Root::mask, "true",
                         true);
    out += pair_function("float score(const Arguments& a, const Query& q, const Key& k, float score)",
                         Root::score, "score", false);
    return out +
           "};\nstatic_assert(vicinal::AttentionVariant<Variant>, \"the variant does not meet the contract "
           "of templates/\");\n\n";
  }

  bool has_mask() const {
    const auto always = [](const ir::Module& m) {
      const auto value = m.constant_value(m.root(Root::mask));
      return !m.root(Root::mask).valid() || (value && value->b);
    };
    return !always(module_) || (variant_.context && !always(variant_.context->module));
  }

  static constexpr std::string_view kHead = "\n  static VICINAL_DEVICE ";

  std::string axis_function() const {
    const auto value = [&](ir::NodeId id, std::string_view otherwise) {
      return id.valid() ? inline_expression(module_, id, names_) : std::string(otherwise);
    };
    std::string out = fmt::format("{}vicinal::Axis axis(const Arguments& a, int i) {{\n", kHead);
    if (module_.axes.empty())
      return out + "    return {static_cast<int>(a.q_axis[i].extent), 0, 1, 1, false};\n  }\n";
    for (std::size_t i = 0; i < module_.axes.size(); ++i) {
      const ir::Axis& a = module_.axes[i];
      fmt::format_to(std::back_inserter(out),
                     "    {}return {{static_cast<int>(a.q_axis[{}].extent), {}, {}, {}, {}}};\n",
                     i + 1 < module_.axes.size() ? fmt::format("if (i == {}) ", i) : "", i,
                     value(a.window, "0"), value(a.dilation, "1"), value(a.stride, "1"), a.causal);
    }
    return out + "  }\n";
  }

  std::string body(const SpecializedKeys& keys, Root root, bool exact, int indent) const {
    return function_body(keys.module, keys.module.root(root), keys.bounds, names_, exact, indent);
  }

  std::string scale_function() const {
    const float scale = static_cast<float>(1 / std::sqrt(static_cast<double>(options_.head_dim)));
    return fmt::format(
        "{}float scale(const Arguments& a, const Query& q) {{\n{}  }}\n", kHead,
        module_.root(Root::scale).valid()
            ? body(variant_.grid, Root::scale, false, 4)
            : fmt::format("    return {}f;  // 1 / sqrt(head dim)\n", support::hex_float(scale)));
  }
  std::string sink_function() const {
    return fmt::format(
        "{}float sink(const Arguments& a, const Query& q) {{\n{}  }}\n", kHead,
        module_.root(Root::sink).valid() ? body(variant_.grid, Root::sink, false, 4) : "    return 0.0f;\n");
  }
  std::string output_function() const {
    return fmt::format(
        "{}float output(const Arguments& a, const Query& q, float out, float lse) {{\n{}  }}\n", kHead,
        module_.root(Root::output).valid() ? body(variant_.grid, Root::output, false, 4)
                                           : "    return out;\n");
  }

  std::string pair_function(std::string_view signature, Root root, std::string_view otherwise,
                            bool exact) const {
    std::string out = fmt::format("\n  template <bool Context>\n  static VICINAL_DEVICE {} {{\n", signature);
    const auto of = [&](const SpecializedKeys& keys, int indent) {
      return keys.module.root(root).valid() ? body(keys, root, exact, indent)
                                            : fmt::format("{:{}}return {};\n", "", indent, otherwise);
    };
    if (!variant_.context) return out + of(variant_.grid, 4) + "  }\n";
    const std::string grid = of(variant_.grid, 6), context = of(*variant_.context, 6);
    if (grid == context) return out + of(variant_.grid, 4) + "  }\n";
    return out + "    if constexpr (Context) {\n" + context + "    } else {\n" + grid + "    }\n  }\n";
  }

  const Specialized& variant_;
  const KernelOptions& options_;
  const ir::Module& module_;
  Uses used_;
  Names names_;
};

}  // namespace

std::string_view name_of(KernelKind kind) {
  return row(kind).name;
}

DType default_input_dtype(ir::Type type) {
  return type == ir::Type::real ? DType::f32 : type == ir::Type::integer ? DType::i32 : DType::boolean;
}

KernelSource emit_cuda(const Specialized& variant, const KernelOptions& options) {
  return Emitter(variant, options).run();
}

}  // namespace vicinal::emit
