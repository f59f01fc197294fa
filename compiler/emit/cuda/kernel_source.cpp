#include "compiler/emit/cuda/kernel_source.h"

#include <fmt/format.h>

#include <cmath>

#include "compiler/emit/cuda/declarations.h"
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

class Emitter {
 public:
  Emitter(const Specialized& variant, const KernelOptions& options)
      : variant_(variant),
        options_(options),
        module_(variant.declarations()),
        declarations_(variant, options, uses(variant)) {}

  KernelSource run() {
    KernelSource source;
    const std::string body = "// What varies from launch to launch.\nstruct Parameters {\n" +
                             declarations_.parameter_members(source.parameters) + "};\n\n" + variant_struct();
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

  std::string variant_struct() const {
    const auto flag = Declarations::flag;
    std::string out = fmt::format(
        "struct Variant {{\n  static constexpr int rank = {};\n  using Arguments = "
        "vicinal::ForwardArguments<rank, Parameters>;\n"
        "  using Query = vicinal::Query<rank>;\n  using Key = vicinal::Key<rank>;\n"
        "  static constexpr vicinal::Normalize normalize = vicinal::Normalize::{};\n",
        declarations_.rank(), ir::name_of(module_.normalize));
    out += flag("query_l2norm", module_.query_l2norm) + flag("key_l2norm", module_.key_l2norm) +
           flag("has_context", module_.context) + flag("has_mask", has_mask(variant_)) +
           flag("has_sink", module_.root(Root::sink).valid()) +
           flag("has_output", module_.root(Root::output).valid()) + flag("align_end", module_.align_end) +
           flag("neighborhood", declarations_.neighborhood());
    out += declarations_.axis_function() + scale_function() + sink_function() + output_function();
    out += pair_function("bool mask(const Arguments& a, const Query& q, const Key& k)", Root::mask, "true",
                         true);
    out += pair_function("float score(const Arguments& a, const Query& q, const Key& k, float score)",
                         Root::score, "score", false);
    return out +
           "};\nstatic_assert(vicinal::AttentionVariant<Variant>, \"the variant does not meet the contract "
           "of templates/\");\n\n";
  }

  static constexpr std::string_view kHead = Declarations::kHead;

  std::string body(const SpecializedKeys& keys, Root root, bool exact, int indent) const {
    return function_body(keys.module, keys.module.root(root), keys.bounds, declarations_.names(), exact,
                         indent);
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
    return declarations_.pair_function(signature, [&](const SpecializedKeys& keys, int indent) {
      return keys.module.root(root).valid() ? body(keys, root, exact, indent)
                                            : fmt::format("{:{}}return {};\n", "", indent, otherwise);
    });
  }

  const Specialized& variant_;
  const KernelOptions& options_;
  const ir::Module& module_;
  Declarations declarations_;
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
