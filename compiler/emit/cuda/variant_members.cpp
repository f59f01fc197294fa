#include "compiler/emit/cuda/variant_members.h"

#include <fmt/format.h>

#include "compiler/emit/cuda/expression.h"
#include "compiler/support/text.h"

namespace vicinal::emit {
namespace {

using ir::Root;

class Members {
 public:
  Members(const Specialized& variant, const Declarations& declarations)
      : variant_(variant), module_(variant.declarations()), declarations_(declarations) {}

  std::string text(std::string_view arguments, int head_dim) const {
    const auto flag = Declarations::flag;
    std::string out = fmt::format(
        "  static constexpr int rank = {};\n  using Arguments = {};\n"
        "  using Query = vicinal::Query<rank>;\n  using Key = vicinal::Key<rank>;\n"
        "  static constexpr vicinal::Normalize normalize = vicinal::Normalize::{};\n",
        declarations_.rank(), arguments, ir::name_of(module_.normalize));
    out += flag("query_l2norm", module_.query_l2norm) + flag("key_l2norm", module_.key_l2norm) +
           flag("has_context", module_.context) + flag("has_mask", has_mask(variant_)) +
           flag("has_score", has_score(variant_)) + flag("has_sink", module_.root(Root::sink).valid()) +
           flag("has_output", module_.root(Root::output).valid()) + flag("align_end", module_.align_end) +
           flag("neighborhood", declarations_.neighborhood());
    out += declarations_.axis_function() + scale_function(head_dim) + sink_function() + output_function();
    out += pair_function("bool mask(const Arguments& a, const Query& q, const Key& k)", Root::mask, "true",
                         true);
    return out + pair_function("float score(const Arguments& a, const Query& q, const Key& k, float score)",
                               Root::score, "score", false);
  }

 private:
  static constexpr std::string_view kHead = Declarations::kHead;

  std::string body(const SpecializedKeys& keys, Root root, bool exact, int indent) const {
    return function_body(keys.module, keys.module.root(root), keys.bounds, declarations_.names(), exact,
                         indent);
  }

  std::string scale_function(int head_dim) const {
    return fmt::format("{}float scale(const Arguments& a, const Query& q) {{\n{}  }}\n", kHead,
                       module_.root(Root::scale).valid()
                           ? body(variant_.grid, Root::scale, false, 4)
                           : fmt::format("    return {}f;  // 1 / sqrt(head dim)\n",
                                         support::hex_float(default_scale(head_dim))));
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
  const ir::Module& module_;
  const Declarations& declarations_;
};

}  // namespace

std::string variant_members(const Specialized& variant, const Declarations& declarations,
                            std::string_view arguments, int head_dim) {
  return Members(variant, declarations).text(arguments, head_dim);
}

}  // namespace vicinal::emit
